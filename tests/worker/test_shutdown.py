"""How a worker ends: what runs may finish, the rest is given back, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from streamq.worker.signals import answered
from tests.conftest import MakeApp
from tests.worker.processes import lines, victim
from tests.worker.waits import one_server, until


@one_server
async def test_sigterm_lets_short_jobs_finish(url: str, namespace: str, app: MakeApp, tmp_path: Path) -> None:
    here, ledger = app(lease="1s"), tmp_path / "ledger"
    starts: Counter[str] = Counter()

    @here.task(name="brief")
    async def brief(number: int) -> int:
        starts[f"START {number}"] += 1
        return number

    async with here, victim(url, namespace, ledger, grace=10) as process:
        jobs = await here.enqueue_many(brief.s(n) for n in range(40))
        await until(lambda: len(lines(ledger)) >= 15)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        there = lines(ledger)
        starts.update(line for line in there if line.startswith("START"))
        ended = sum(line.startswith("END") for line in there)
        assert ended == sum(starts.values()) < 40
        async with here.worker():
            assert [await job.result(timeout=5) for job in jobs] == list(range(40))
    assert set(starts.values()) == {1}


@one_server
async def test_a_second_signal_does_not_wait_for_grace(url: str, namespace: str, app: MakeApp, tmp_path: Path) -> None:
    here, ledger = app(lease="1s"), tmp_path / "ledger"
    here.task(name="hang")(nothing)
    async with here, victim(url, namespace, ledger, grace=60) as process:
        job = await here.enqueue("hang")
        await until(lambda: len(lines(ledger)) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while b"once more cancels" not in await asyncio.wait_for(process.stderr.readline(), 5):
            pass
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 3) == 0
        found = await here.broker.find("default", job.id)
        assert (found.where, found.consumer) == ("stream", "nobody")
        async with here.worker():
            await job.result(timeout=5)


async def test_what_answered_a_signal_before_does_so_again() -> None:
    heard = asyncio.Event()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with answered({signal.SIGHUP: heard.set}):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(heard.wait(), 5)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def nothing() -> None: ...


async def test_a_job_that_will_not_end_keeps_its_lease_to_itself(
    app: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.worker.worker.UNWIND_WITHIN", 0.05)
    here, let_go, running, starts = app(lease="0.5s"), asyncio.Event(), asyncio.Event(), 0

    @here.task
    async def deaf() -> int:
        nonlocal starts
        starts += 1
        running.set()
        while starts == 1 and not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        return starts

    async with here:
        with caplog.at_level(logging.ERROR, "streamq.worker"):
            async with here.worker(name="stubborn", grace=0.01):
                job = await deaf.enqueue()
                await running.wait()
        assert f"do not end; others take over when their leases run out: {job.id}" in caplog.text
        assert (await here.broker.find("default", job.id)).consumer == "stubborn"
        async with here.worker():
            assert await job.result(timeout=5) == 2
        let_go.set()
        await until(lambda: not [t for t in asyncio.all_tasks() if "_work" in repr(t)])
        assert await job.result(timeout=1) == 2


async def test_fifty_workers_come_and_go_and_leave_nothing(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task
    async def echo(number: int) -> int:
        return number

    async with here:
        assert await run_one(here, echo, -1) == -1  # whatever is made once is made now
        tasks, threads = asyncio.all_tasks(), threading.active_count()
        for number in range(50):
            assert await run_one(here, echo, number) == number
        assert {task.get_name() for task in asyncio.all_tasks() - tasks} == set()
        await until(lambda: threading.active_count() <= threads)
        line, keys = here.broker.line("commands"), here.broker.keys("default")
        for priority in range(10):
            stream = keys.stream(priority)
            assert await line.call("XINFO", "CONSUMERS", stream, "w") == []
            assert cast("list[object]", await line.call("XPENDING", stream, "w"))[0] == 0
        assert await line.call("ZCARD", keys.workers) == 0
        assert await line.call("HLEN", keys.worker_info) == 0


async def test_workers_that_are_stopped_while_they_connect(app: MakeApp) -> None:
    here = app(lease="1s")
    async with here, asyncio.timeout(20):
        for steps in range(60):
            async with here.worker():
                for _ in range(steps):
                    await asyncio.sleep(0)


async def run_one(here, echo, number: int) -> int:  # type: ignore[no-untyped-def]
    async with here.worker():
        return cast(int, await (await echo.enqueue(number)).result(timeout=5))


async def test_what_waits_for_a_slot_is_given_back_uncounted(app: MakeApp) -> None:
    here, running, finish = app(lease="5s"), asyncio.Event(), asyncio.Event()

    @here.task
    async def slow() -> None:
        running.set()
        await finish.wait()

    async with here:
        jobs = await here.enqueue_many(slow.s() for _ in range(4))
        async with here.worker(concurrency=1, prefetch=3) as worker:
            await running.wait()
            assert worker.crew is not None
            await until(lambda: worker.crew.slots.waiting == 3)
            worker.stop()
            await until(lambda: len(worker.crew.lanes["default"].held) == 1)
            for job in jobs[1:]:
                assert (await here.broker.find("default", job.id)).consumer == "nobody"
            finish.set()
        async with here.worker() as worker:
            assert worker.crew is not None
            started = time.monotonic()
            for job in jobs:
                await job.result(timeout=10)
            assert time.monotonic() - started < 5


async def test_a_service_that_crashes_is_raised_and_its_jobs_end(app: MakeApp) -> None:
    here, running, ended = app(lease="1s"), asyncio.Event(), asyncio.Event()

    @here.task
    async def wait() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with here:
        worker = here.worker(grace=60)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is raised at the end of the block
            async with worker:
                job = await wait.enqueue()
                await running.wait()

                async def crash() -> float:
                    return 1 / 0

                assert worker.crew is not None
                (janitor,) = worker.crew.janitors.values()
                janitor.turn = crash  # type: ignore[method-assign]
                janitor.wake()
                await asyncio.wait_for(ended.wait(), 5)
        await job.cancel()
