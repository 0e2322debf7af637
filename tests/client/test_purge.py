"""Purging a queue: all that waits is cancelled as if one by one, whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import JobCancelled, State, StreamQ
from streamq.core.outcome import Release
from tests.client.byhand import Hand
from tests.conftest import MakeApp
from tests.worker.waits import Time


def shop(app: MakeApp, **settings: Any) -> StreamQ[Any]:
    made = app(**settings)

    @made.task(name="add")
    async def add(number: int = 1) -> int:
        return number

    return made


async def test_all_that_waits_and_nothing_else(app: MakeApp) -> None:
    here = shop(app)
    add, hand, queue = here.tasks["add"], Hand(here), here.queue()
    jobs = [await add.enqueue() for _ in range(5)]
    running, back, retrying, parked, dead = await hand.take()
    await hand.settle(back, Release())
    await hand.postpone(retrying, State.RETRY)
    await hand.postpone(parked, State.PENDING)
    await hand.bury(dead)
    jobs += [await add.using(countdown="1h").enqueue(), await add.using(priority=9).enqueue()]
    elsewhere = await add.using(queue="emails").enqueue()
    assert await queue.purge(dry_run=True) == 5
    assert await jobs[1].status() is State.QUEUED
    pages: list[int] = []
    assert await queue.purge(progress=pages.append) == 5
    assert sum(pages) == 5
    states = [await job.status() for job in jobs]
    assert states == [State.STARTED, *[State.CANCELLED] * 3, State.FAILURE, *[State.CANCELLED] * 2]
    assert await elsewhere.status() is State.QUEUED
    assert [each.job_id for each in await here.dead_letters().list()] == [dead.job_id]
    await hand.succeed(running)
    assert await queue.purge() == 0
    with pytest.raises(JobCancelled, match=f"add {jobs[1].id} was cancelled: purged"):
        await jobs[1].result()


async def test_whoever_waits_hears_of_it_and_keys_end(app: MakeApp) -> None:
    here = shop(app)
    add = here.tasks["add"]
    async with here:
        job = await add.using(idempotency_key="once").enqueue()
        waiting = asyncio.ensure_future(job.result(timeout=5))
        while not await here.broker.command("HEXISTS", here.broker.keys("default").side, f"w:{job.id}"):
            await asyncio.sleep(0.002)
        assert await here.queue().purge() == 1
        with pytest.raises(JobCancelled):
            await waiting
        again = await add.using(idempotency_key="once").enqueue()
        assert again.deduplicated  # the key is remembered for a day, as after any end
        assert await again.status() is State.CANCELLED


@pytest.mark.parametrize("countdown", [0, 3_600], ids=["queued", "delayed"])
async def test_many_pages(app: MakeApp, countdown: int) -> None:
    """The delayed ones are due all at once: what leaves moves the others to where was read already."""
    here, pages = shop(app), list[int]()
    add = here.tasks["add"].using(countdown=countdown)
    async with here:
        jobs = await here.enqueue_many(add.s(n) for n in range(450))
        assert await here.queue().purge(progress=pages.append) == 450
        assert max(pages) == 100
        assert await jobs[0].status() is State.CANCELLED
        assert await jobs[-1].status() is State.CANCELLED
        info = await here.queue().info()
        assert (info.queued, info.scheduled) == (0, 0)


async def test_what_comes_after_it_began_stays(app: MakeApp) -> None:
    here, clock = shop(app), Time()
    clock.rules(here)
    add = here.tasks["add"]
    async with here:
        await here.enqueue_many(add.using(countdown="1h").s(n) for n in range(300))
        clock.ms += 5_000
        later = await here.enqueue_many(add.using(countdown="2h").s(n) for n in range(150))
        clock.ms -= 5_000  # these were made after the purge began
        assert await here.queue().purge() == 300
        assert await later[0].status() is State.SCHEDULED
        assert (await here.queue().info()).scheduled == 150


async def test_the_record_is_kept_as_long_as_the_call_said(app: MakeApp) -> None:
    here = shop(app)
    async with here:
        job = await here.tasks["add"].using(result_ttl=60).enqueue()
        gone = await here.tasks["add"].using(result_ttl=0).enqueue()
        await here.queue().purge()
        ttl = await here.broker.command("PTTL", here.broker.keys("default").records + job.id)
        assert isinstance(ttl, int)
        assert 0 < ttl <= 60_000
        assert (await gone.explain()).cause.startswith("It was cancelled")
