"""Schedules: what is made up for, who fires, and under which ids."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis

from streamq import StreamQ
from streamq.broker import scripts
from streamq.broker.embedded import EmbeddedServer
from streamq.worker.scheduler import LATE_MS, Scheduler, occurrence_id
from tests.broker.byhand import variant
from tests.conftest import MakeApp
from tests.worker.waits import Time, until

PERIOD = 3_600_000


def hourly(make: MakeApp, clock: Time, catch_up: Any = "last") -> StreamQ[Any]:
    here = make()
    clock.rules(here)

    @here.every("1h", catch_up=catch_up, name="hourly")
    @here.task(name="tick")
    async def tick() -> None: ...

    return here


async def queued(here: StreamQ[Any]) -> int:
    return (await here.queue().info()).queued


async def fired(here: StreamQ[Any], name: str, occurrence: int) -> bool:
    return (await here.broker.find("default", occurrence_id(name, occurrence))).where == "stream"


@pytest.mark.parametrize(("catch_up", "made_up"), [("last", 1), ("all", 10), ("skip", 0)])
async def test_after_ten_missed_periods(app: MakeApp, catch_up: str, made_up: int) -> None:
    clock = Time()
    async with hourly(app, clock, catch_up) as here:
        await Scheduler(here).turn()
        assert await queued(here) == 0
        clock.ms += 10 * PERIOD + PERIOD // 2
        scheduler = Scheduler(here)  # nobody ran in between
        await scheduler.turn()
        assert await queued(here) == made_up
        await scheduler.turn()
        assert await queued(here) == made_up
        newest = clock.ms // PERIOD * PERIOD
        assert [await fired(here, "hourly", newest - n * PERIOD) for n in range(11)] == [n < made_up for n in range(11)]
        clock.ms += PERIOD
        await scheduler.turn()  # and from here on as ever
        assert await queued(here) == made_up + (catch_up != "skip")
        clock.ms = (clock.ms // PERIOD + 1) * PERIOD
        await scheduler.turn()
        assert await fired(here, "hourly", clock.ms)


async def test_skip_still_fires_what_is_merely_late(app: MakeApp) -> None:
    clock = Time(1_800_000_000_000 // PERIOD * PERIOD + 1)
    async with hourly(app, clock, "skip") as here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        clock.ms += PERIOD - 1 + LATE_MS // 2
        await scheduler.turn()
        assert await queued(here) == 1


async def test_of_two_workers_one_fires(app: MakeApp) -> None:
    clock = Time()
    async with hourly(app, clock) as one, hourly(app, clock) as other:
        schedulers = [Scheduler(one), Scheduler(other)]
        for _ in range(4):
            for scheduler in schedulers:
                await scheduler.turn()
            clock.ms += PERIOD
        assert await queued(one) == 3


async def test_cron_expressions_fire_at_their_times(app: MakeApp) -> None:
    here, clock = app(), Time(1_800_000_000_000)  # 08:00 UTC
    clock.rules(here)

    @here.cron("30 9 * * *", tz="UTC", name="morning")
    @here.task
    async def morning() -> None: ...

    async with here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        due = clock.ms + 90 * 60_000
        clock.ms = due - 1
        assert await scheduler.turn() == pytest.approx(0.001)
        assert await queued(here) == 0
        clock.ms = due
        await scheduler.turn()
        assert await fired(here, "morning", due)


async def test_a_schedule_of_a_task_that_nobody_has(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    here = app(lease="1s", beat_schedule={"ghost": {"task": "shop.ghost", "schedule": 0.1}})

    @here.task
    async def fine() -> str:
        return "fine"

    async with here:
        with caplog.at_level(logging.WARNING, "streamq.worker"):
            async with here.worker():
                await until(lambda: "unknown task 'shop.ghost'" in caplog.text)
                assert await (await fine.enqueue()).result(timeout=5) == "fine"


# ---- pauses ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Cuts a guard out of a script."""

    def cut(name: str, guard: str) -> None:
        monkeypatch.setitem(scripts.SCRIPTS, name, variant(name, (guard, "")))

    return cut


GUARDED = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
PAUSED = "if pause[1] then return 0 end\n"
BEFORE = "if tonumber(pause[2] or 0) >= occurrence then return 0 end\n"


@GUARDED
async def test_a_paused_schedule_enqueues_nothing(app: MakeApp, cut: Any, guarded: bool) -> None:
    if not guarded:
        cut("fire", PAUSED)
    clock = Time()
    async with hourly(app, clock, "all") as here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        await here.schedules().pause("hourly")
        for _ in range(3):
            clock.ms += PERIOD
            await scheduler.turn()
        assert await queued(here) == (0 if guarded else 3)


@GUARDED
@pytest.mark.parametrize("catch_up", ["last", "all"])
async def test_what_fell_due_in_a_pause_is_not_made_up_for(
    app: MakeApp, cut: Any, guarded: bool, catch_up: str
) -> None:
    if not guarded:
        cut("fire", BEFORE)
    clock = Time(1_800_000_000_000 // PERIOD * PERIOD + 1)
    async with hourly(app, clock, catch_up) as here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        await here.schedules().pause("hourly")
        clock.ms += 5 * PERIOD
        await here.schedules().resume("hourly")
        await scheduler.turn()  # nobody ran in between
        assert await queued(here) == (0 if guarded else 1 if catch_up == "last" else 5)
        clock.ms += PERIOD
        await scheduler.turn()
        assert await fired(here, "hourly", clock.ms // PERIOD * PERIOD)


async def test_a_pause_between_two_occurrences_costs_none(app: MakeApp) -> None:
    clock = Time()
    async with hourly(app, clock) as here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        clock.ms += PERIOD
        await scheduler.turn()
        assert await queued(here) == 1
        await here.schedules().pause("hourly")
        await here.schedules().resume("hourly")
        clock.ms += PERIOD
        await scheduler.turn()
        assert await queued(here) == 2


async def test_a_scheduler_that_starts_goes_on_after_the_pause(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    here = app(beat_schedule={"often": {"task": "tick", "schedule": 1.0, "catch_up": "all"}})
    clock.rules(here)
    async with here:
        await Scheduler(here).turn()
        await here.schedules().pause("often")
        clock.ms += 24 * PERIOD
        assert await here.broker.last_fired("default", ["often"]) == {"often": clock.ms}
        await here.schedules().resume("often")
        resumed = clock.ms
        clock.ms += 2_000
        assert await here.broker.last_fired("default", ["often"]) == {"often": resumed}
        await Scheduler(here).turn()
        assert await queued(here) == 2
    assert "were missed" not in caplog.text


async def test_a_pause_concerns_one_schedule_and_all_that_fire_it(app: MakeApp) -> None:
    clock = Time()

    def both() -> StreamQ[Any]:
        here = hourly(app, clock)
        here.every("1h", name="other")(here.tasks["tick"])
        return here

    async with both() as one, both() as two:
        schedulers = [Scheduler(one), Scheduler(two)]
        for scheduler in schedulers:
            await scheduler.turn()
        await one.schedules().pause("hourly")
        clock.ms += PERIOD
        for scheduler in schedulers:
            await scheduler.turn()
        due = clock.ms // PERIOD * PERIOD
        assert [await fired(two, name, due) for name in ("hourly", "other")] == [False, True]


async def test_while_nothing_is_due_redis_is_not_asked(app: MakeApp, server: EmbeddedServer) -> None:
    clock = Time()
    async with hourly(app, clock) as here:
        scheduler = Scheduler(here)
        await scheduler.turn()
        await here.schedules().pause("hourly")
        with redis.Redis.from_url(server.url) as client:
            before = client.info("commandstats")
            for _ in range(5):
                assert await scheduler.turn() > 0
            after = client.info("commandstats")
    calls = {name: found["calls"] - before.get(name, {"calls": 0})["calls"] for name, found in after.items()}
    assert {name: number for name, number in calls.items() if number} == {"cmdstat_info": 1}


@pytest.mark.parametrize("schedules", [True, False])
async def test_a_worker_can_leave_the_schedules_to_others(app: MakeApp, schedules: bool) -> None:
    async with hourly(app, Time()) as here, here.worker(schedules=schedules) as worker:
        assert worker.crew is not None
        assert any(isinstance(each, Scheduler) for each in worker.crew.bring_jobs) is schedules
