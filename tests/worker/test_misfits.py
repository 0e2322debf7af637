"""Entries that cannot run here: unknown tasks, unreadable bytes, suspects."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamq import JobFailed, State, StreamQ
from streamq.broker.broker import NewJob
from streamq.core.outcome import UNKNOWN_TASK_PATIENCE_MS
from streamq.worker.held import Cause
from tests.conftest import MakeApp
from tests.worker.waits import Time, until


async def park(here: StreamQ[Any], job_id: str) -> None:
    async with here.worker():

        async def parked() -> bool:
            return (await here.broker.find("default", job_id)).where == "parked"

        await until(parked)


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    old, new = app(lease="1s"), app(lease="1s")
    old.task(name="shop.ad")(nothing)

    @new.task(name="shop.add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with old, new:
        job = await add.enqueue(2, 3)
        with caplog.at_level(logging.WARNING, "streamq.worker"):
            await park(old, job.id)
        assert "unknown task 'shop.add'" in caplog.text
        assert "Nearest: shop.ad" in caplog.text
        assert await job.status() is State.PENDING
        async with new.worker():
            assert await job.result(timeout=5) == 5
        assert (await job.info()).retries == 0


async def test_after_an_hour_an_unknown_task_is_a_dead_letter(app: MakeApp) -> None:
    here, clock = app(lease="1s"), Time()
    clock.rules(here)
    async with here:
        job = await here.enqueue("shop.typo", 1)
        await park(here, job.id)
        clock.ms += UNKNOWN_TASK_PATIENCE_MS - 1
        await here.broker.promote("default")
        await park(here, job.id)
        clock.ms += 60_000
        async with here.worker():
            with pytest.raises(JobFailed, match=r"UnknownTask.*shop\.typo.*for an hour"):
                await job.result(timeout=5)
        (letter,) = await here.broker.dead("default")
        assert letter.reason.value == "unknown_task"


async def nothing() -> None: ...


async def test_unreadable_entries_between_good_ones(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task
    async def echo(number: int) -> int:
        return number

    garbage = [b"", b"\xc1", b"\x81", b"\x93\x01\x02", b"\xff" * 1000, b"{}", b"\x80", b"\xdd\xff\xff\xff\xff"]
    async with here:
        jobs = []
        for number, junk in enumerate(garbage):
            await here.broker.add("default", [NewJob(f"junk{number}", junk)])
            jobs.append(await echo.enqueue(number))
        await here.broker.line("commands").call(
            "XADD", here.broker.keys("default").stream(0), "*", "what", "is", "this", "\udcff".encode(errors="replace")
        )
        jobs.append(await echo.enqueue(len(garbage)))
        async with here.worker() as worker:
            assert [await job.result(timeout=5) for job in jobs] == list(range(len(garbage) + 1))
            crew = worker.crew
            assert crew is not None
            await until(lambda: crew.slots.empty and not crew.lanes["default"].held)
        letters = await here.broker.dead("default")
    assert len(letters) == len(garbage) + 1
    assert {letter.reason.value for letter in letters} == {"unreadable"}


async def test_one_suspect_after_the_other_and_none_is_forgotten(app: MakeApp) -> None:
    """Two jobs were delivered twice to a worker that died; while one of them runs, the other is left where it is."""
    here, finish = app(lease="0.2s", max_crashes=5), asyncio.Event()
    most, running = 0, 0

    @here.task
    async def heavy() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await finish.wait()
        running -= 1

    async with here:
        jobs = await here.enqueue_many(heavy.s() for _ in range(3))
        await crash_with_all(here, 2)
        async with here.worker() as worker:
            crew = worker.crew
            assert crew is not None
            await until(lambda: running == 1)
            assert crew.slots.suspects == 1
            await until(lambda: crew.slots.free > 0)
            finish.set()
            for job in jobs:
                await job.result(timeout=5)
            await until(lambda: crew.slots.empty and crew.slots.suspects == 0)
    assert most == 1


async def crash_with_all(here: StreamQ[Any], times: int) -> None:
    """Deliveries that nobody reports on, as by workers that died. The entries are idle for a lease afterwards."""
    broker = here.broker
    lease = round(here.options.lease * 1000)
    await broker.prepare("default")
    await broker.turn("default", "dead", [], 500, request=1)
    for _ in range(times - 1):
        got = 0
        while not got:
            taken, _ = await broker.reclaim("default", "dead", lease_ms=lease, want=500, suspects=500)
            got = len(taken)


async def test_a_suspect_that_is_acknowledged_early_makes_room_for_the_next(app: MakeApp) -> None:
    here = app(lease="0.2s", max_crashes=5)

    @here.task(acks_early=True)
    async def brief() -> None: ...

    async with here:
        jobs = await here.enqueue_many(brief.s() for _ in range(3))
        await crash_with_all(here, 2)
        async with here.worker() as worker:
            crew = worker.crew
            assert crew is not None
            for job in jobs:
                await job.result(timeout=10)
            await until(lambda: crew.slots.empty and crew.slots.suspects == 0)


async def test_a_suspect_cancelled_while_it_waits_for_another_gives_its_slot_back(app: MakeApp) -> None:
    here, finish = app(lease="0.2s", max_crashes=5), asyncio.Event()

    @here.task
    async def heavy() -> str:
        await finish.wait()
        return "done"

    async with here:
        jobs = await here.enqueue_many(heavy.s() for _ in range(2))
        await crash_with_all(here, 2)
        async with here.worker() as worker:
            crew = worker.crew
            assert crew is not None
            lane = crew.lanes["default"]
            await crew.runner._suspects.acquire()  # as another worker's in this process would
            await until(lambda: len(lane.held) == 1)
            (waiting,) = lane.held.values()
            await until(lambda: waiting.begun)
            waiting.cancel(Cause.SHUTDOWN, "for the test")
            await until(lambda: waiting.task is not None and waiting.task.done())
            crew.runner._suspects.release()
            finish.set()
            assert [await job.result(timeout=5) for job in jobs] == ["done"] * 2
            await until(lambda: crew.slots.empty and crew.slots.suspects == 0)
