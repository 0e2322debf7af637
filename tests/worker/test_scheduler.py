"""Schedules: what is made up for, who fires, and under which ids."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from streamq import StreamQ
from streamq.worker.scheduler import LATE_MS, Scheduler, occurrence_id
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
