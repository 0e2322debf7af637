"""Whose turn it is: priorities within a queue, weights between queues, and what is held ready."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.conftest import MakeApp
from tests.worker.waits import until


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_weights_share_the_starts_of_busy_queues(app: MakeApp, concurrency: int) -> None:
    here = app(lease="1s")
    order: list[str] = []

    @here.task
    async def note(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    async with here:
        for queue in ("high", "default"):
            await here.enqueue_many(note.using(queue=queue).s(queue) for _ in range(200))
        worker = here.worker(queues={"high": 3, "default": 1}, concurrency=concurrency, burst=True)
        await asyncio.wait_for(worker.run(), 20)
    assert Counter(order) == {"high": 200, "default": 200}
    both_busy = Counter(order[:200])
    assert 2.4 <= both_busy["high"] / both_busy["default"] <= 3.6


async def test_an_idle_queue_costs_the_busy_one_nothing(app: MakeApp) -> None:
    here, most, running = app(lease="1s"), 0, 0

    @here.task
    async def work() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1

    async with here:
        jobs = await here.enqueue_many(work.s() for _ in range(40))
        async with here.worker(queues={"idle": 9, "default": 1}, concurrency=4):
            for job in jobs:
                await job.result(timeout=5)
            late = await work.using(queue="idle").enqueue()
            await late.result(timeout=1)
    assert most == 4


async def test_higher_priorities_start_first(app: MakeApp) -> None:
    here = app(lease="1s")
    order: list[int] = []

    @here.task
    async def note(priority: int) -> None:
        order.append(priority)

    async with here:
        await here.enqueue_many(note.using(priority=p % 10).s(p % 10) for p in range(50))
        await asyncio.wait_for(here.worker(concurrency=1, burst=True).run(), 10)
    assert order == sorted(order, reverse=True)
    assert len(order) == 50


async def test_prefetched_jobs_are_held_ready_and_no_more_than_asked(app: MakeApp) -> None:
    here, finish, running = app(lease="1s"), asyncio.Event(), 0

    @here.task
    async def slow() -> None:
        nonlocal running
        running += 1
        await finish.wait()

    async with here:
        jobs = await here.enqueue_many(slow.s() for _ in range(20))
        async with here.worker(concurrency=2, prefetch=3) as worker:
            crew = worker.crew
            assert crew is not None
            lane = crew.lanes["default"]
            await until(lambda: len(lane.held) == 5)
            held = [await here.broker.find("default", job.id) for job in jobs]
            assert [found.consumer for found in held] == [worker.name] * 5 + [""] * 15
            assert (running, crew.slots.running, crew.slots.waiting) == (2, 2, 3)
            finish.set()
            for job in jobs:
                await job.result(timeout=5)
            await until(lambda: crew.slots.empty and not lane.held)
            assert (crew.slots.waiting, crew.slots.reserved, crew.slots.suspects) == (0, 0, 0)


async def test_a_slot_that_is_free_is_found_by_each_of_many_queues(app: MakeApp) -> None:
    here = app(lease="1s")
    names = [f"q{n}" for n in range(6)]

    @here.task
    async def echo(name: str) -> str:
        await asyncio.sleep(0.001)
        return name

    async with here, here.worker(queues=dict(zip(names, range(1, 7), strict=True)), concurrency=1):
        for _ in range(10):
            jobs = [await echo.using(queue=name).enqueue(name) for name in names]
            assert [await job.result(timeout=2) for job in jobs] == names
