"""Schedules as their owner asks about them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from streamq import ConfigurationError, State, StreamQ
from streamq.worker.scheduler import Scheduler, occurrence_id
from tests.conftest import MakeApp
from tests.worker.waits import Time

START = datetime(2027, 1, 15, 8, tzinfo=UTC)
HOUR = 3_600_000


def at(hour: int, minute: int = 0, day: int = 15) -> datetime:
    return START.replace(hour=hour, minute=minute, day=day)


@pytest.fixture
def clock() -> Time:
    return Time(round(START.timestamp() * 1000))


@pytest.fixture
def shop(app: MakeApp, clock: Time) -> StreamQ[Any]:
    here = app(tz="Europe/Berlin", routes={"report": "slow"})
    clock.rules(here)

    @here.cron("30 9 * * *", name="morning", kwargs={"kind": "short"})
    @here.every("90m", name="often", queue="fast")
    @here.task(name="report")
    async def report(kind: str = "long") -> str:
        return kind

    return here


async def test_what_the_code_says(shop: StreamQ[Any]) -> None:
    async with shop:
        often, morning = await shop.schedules().list()
    assert (often.name, often.task, often.what, often.tz, often.queue) == ("often", "report", "every 1h30m", "", "fast")
    found = (morning.name, morning.task, morning.what, morning.tz, morning.queue)
    assert found == ("morning", "report", "30 9 * * *", "Europe/Berlin", "slow")
    assert (often.last, morning.last, often.paused, morning.paused) == (None, None, None, None)
    assert often.next == (at(9), at(10, 30), at(12))
    assert morning.next == (at(8, 30), at(8, 30, 16), at(8, 30, 17))


async def test_when_it_fired_last(shop: StreamQ[Any], clock: Time) -> None:
    async with shop:
        scheduler = Scheduler(shop)
        clock.ms += 1
        await scheduler.turn()  # both are seen for the first time, which is no occurrence
        assert [each.last for each in await shop.schedules().list()] == [None, None]
        clock.ms += HOUR
        await scheduler.turn()
        assert [each.last for each in await shop.schedules().list()] == [at(9), at(8, 30)]
        assert await shop.schedules().show("often") == (await shop.schedules().list())[0]


async def test_a_pause_is_seen_and_what_was_fired_before_too(shop: StreamQ[Any], clock: Time) -> None:
    async with shop:
        schedules, scheduler = shop.schedules(), Scheduler(shop)
        clock.ms += 1
        await scheduler.turn()
        clock.ms += HOUR
        await scheduler.turn()
        since = await schedules.pause("often")
        assert since == datetime.fromtimestamp(clock.ms / 1000, UTC)
        clock.ms += 2 * HOUR
        await scheduler.turn()
        assert await schedules.pause("often") == since
        often, morning = await schedules.list()
        assert (often.paused, often.next, often.last) == (since, (), at(9))
        assert (morning.paused, len(morning.next)) == (None, 3)
        assert await schedules.resume("often")
        assert not await schedules.resume("often")
        often = await schedules.show("often")
        assert (often.paused, often.next[0], often.last) == (None, at(12), at(9))


async def test_the_next_occurrences_of_all(shop: StreamQ[Any]) -> None:
    async with shop:
        schedules = shop.schedules()
        found = await schedules.upcoming(limit=4)
        assert [(each.at, each.name) for each in found] == [
            (at(8, 30), "morning"),
            (at(9), "often"),
            (at(10, 30), "often"),
            (at(12), "often"),
        ]
        assert (found[1].task, found[1].queue) == ("report", "fast")
        assert [each.at for each in await schedules.upcoming("morning", 2)] == [at(8, 30), at(8, 30, 16)]
        await schedules.pause("often")
        assert {each.name for each in await schedules.upcoming(limit=4)} == {"morning"}
        assert await schedules.upcoming("often") == []


async def test_running_one_now_is_no_occurrence(shop: StreamQ[Any], clock: Time) -> None:
    async with shop:
        scheduler = Scheduler(shop)
        await scheduler.turn()
        await shop.schedules().pause("morning")
        job = await shop.schedules().run("morning")
        assert not job.id.startswith("cron-")
        assert (await job.info()).queue == "slow"
        assert await job.status() is State.QUEUED
        assert (await shop.schedules().show("morning")).last is None
        await shop.schedules().resume("morning")
        clock.ms += HOUR
        await scheduler.turn()
        occurrence = occurrence_id("morning", round(at(8, 30).timestamp() * 1000))
        assert (await shop.broker.find("slow", occurrence)).where == "stream"


async def test_a_name_that_does_not_exist(shop: StreamQ[Any]) -> None:
    async with shop:
        for verb in (shop.schedules().pause, shop.schedules().resume, shop.schedules().run, shop.schedules().show):
            with pytest.raises(ConfigurationError, match=r"mornign is not a known schedule. Did you mean morning\?"):
                await verb("mornign")


async def test_without_schedules(app: MakeApp) -> None:
    async with app() as here:
        assert await here.schedules().list() == []
        assert await here.schedules().upcoming() == []
