"""A worker inside the application: one behaviour a test, on real servers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from streamq import Context, JobCancelled, JobFailed, Reject, SoftTimeLimitExceeded, StreamQ
from streamq.broker.broker import NewJob
from tests.conftest import MakeApp


async def until(check: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not await check():
            await asyncio.sleep(0.005)


async def older_than(app: StreamQ[Any], seconds: int) -> bool:
    info = bytes(cast(bytes, await app.broker.line("commands").call("INFO", "server")))
    return int(info.partition(b"uptime_in_seconds:")[2].split(b"\r")[0]) > seconds


async def test_it_runs_async_and_plain_functions_and_gives_the_results(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task
    async def add(x: int, y: int) -> int:
        return x + y

    @here.task
    def where() -> str:
        return threading.current_thread().name

    async with here, here.worker():
        assert await (await add.enqueue(2, 3)).result(timeout=5) == 5
        assert await (await where.enqueue()).result(timeout=5) != threading.main_thread().name


async def test_a_listed_failure_is_retried_and_an_unlisted_one_is_not(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task(autoretry_for=(OSError,), max_retries=2, default_retry_delay=0.01)
    async def flaky(ctx: Context[None]) -> int:
        if ctx.retries < 2:
            raise OSError("again")
        return ctx.retries

    @here.task
    async def broken() -> None:
        raise KeyError("x")

    async with here, here.worker():
        assert await (await flaky.enqueue()).result(timeout=5) == 2
        with pytest.raises(JobFailed, match="KeyError"):
            await (await broken.enqueue()).result(timeout=5)


async def test_time_limits(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task(soft_time_limit=0.05)
    async def soft() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            return "tidied up"
        return "never"

    @here.task(time_limit=0.05)
    async def hard() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "what it says now does not count"
        return "never"

    async with here, here.worker():
        assert await (await soft.enqueue()).result(timeout=5) == "tidied up"
        with pytest.raises(JobFailed, match="TimeLimitExceeded"):
            await (await hard.enqueue()).result(timeout=5)


async def test_a_running_job_can_be_cancelled(app: MakeApp) -> None:
    here, running = app(lease="60s"), asyncio.Event()  # the bell, not the next renewal, brings the news

    @here.task
    async def wait() -> None:
        running.set()
        await asyncio.Event().wait()

    async with here, here.worker():
        job = await wait.enqueue()
        await running.wait()
        await job.cancel("no longer needed")
        with pytest.raises(JobCancelled) as cancelled:
            await job.result(timeout=5)
        assert cancelled.value.reason == "no longer needed"


async def test_exits_of_a_task_end_the_job_and_never_the_worker(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task
    async def leave() -> None:
        raise SystemExit(3)

    @here.task
    async def reject() -> None:
        raise Reject("not for me")

    async with here, here.worker():
        with pytest.raises(JobFailed, match="SystemExit"):
            await (await leave.enqueue()).result(timeout=5)
        with pytest.raises(JobFailed, match="not for me"):
            await (await reject.enqueue()).result(timeout=5)


async def test_an_unreadable_entry_is_a_dead_letter_and_its_neighbours_run(app: MakeApp) -> None:
    here = app(lease="1s")

    @here.task
    async def fine() -> str:
        return "fine"

    async with here:
        await here.broker.add("default", [NewJob("garbage", b"\xc1\xc1 what is this")])
        job = await fine.enqueue()
        async with here.worker():
            assert await job.result(timeout=5) == "fine"

            async def buried() -> bool:
                return await here.broker.dead_one("default", "garbage") is not None

            await until(buried)
        letter = await here.broker.dead_one("default", "garbage")
        assert letter is not None
        assert (letter.reason.value, letter.body) == ("unreadable", b"\xc1\xc1 what is this")


async def test_a_result_above_the_limit_fails_the_job(app: MakeApp) -> None:
    here = app(lease="1s", max_payload=1000)

    @here.task
    async def large() -> str:
        return "x" * 2000

    async with here, here.worker():
        with pytest.raises(JobFailed, match="PayloadTooLarge"):
            await (await large.enqueue()).result(timeout=5)


async def test_a_worker_that_lost_its_lease_records_nothing(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Another worker takes the entry over while the first is paused; the first one's success is refused."""
    here, started, finish = app(lease="1s"), asyncio.Event(), asyncio.Event()
    answers = iter(["late", "right"])

    @here.task
    async def slow() -> str:
        answer = next(answers)
        if answer == "late":
            started.set()
            await finish.wait()
        return answer

    worker, other = here.worker(concurrency=1), here.worker(concurrency=1)
    async with here, worker:
        job = await slow.enqueue()
        await started.wait()
        assert worker.crew is not None
        worker.crew.heartbeat.suspended = True  # what SIGSTOP does to a process, without the stop
        for reclaimer in worker.crew.reclaimers.values():
            reclaimer.stop()
        (holding,) = worker.crew.lanes["default"].held.values()
        holding.deadline = float("inf")
        async with other:
            assert await job.result(timeout=10) == "right"
            with caplog.at_level(logging.WARNING, "streamq.worker"):
                finish.set()

                async def refused() -> bool:
                    return "nothing is recorded of this attempt" in caplog.text

                await until(refused)
        assert await job.result(timeout=1) == "right"


async def test_burst_ends_when_the_queue_is_empty(app: MakeApp) -> None:
    here, ran = app(lease="1s"), 0

    @here.task
    async def count() -> None:
        nonlocal ran
        ran += 1

    async with here:
        await here.enqueue_many(count.s() for _ in range(500))
        await asyncio.wait_for(here.worker(burst=True).run(), 10)
    assert ran == 500


async def test_two_queues_share_one_slot_without_starving(app: MakeApp) -> None:
    here = app(lease="1s")
    order: list[str] = []

    @here.task
    async def note(name: str) -> None:
        order.append(name)

    async with here:
        for queue in ("a", "b"):
            await here.enqueue_many(note.using(queue=queue).s(queue) for _ in range(40))
        await asyncio.wait_for(here.worker(queues={"a": 1, "b": 1}, concurrency=1, burst=True).run(), 20)
    assert sorted(order) == ["a"] * 40 + ["b"] * 40
    assert 10 <= order[:40].count("a") <= 30


async def test_at_the_end_of_grace_a_job_is_given_back(app: MakeApp) -> None:
    here, starts = app(lease="3s"), 0
    running = asyncio.Event()

    @here.task
    async def long() -> str:
        nonlocal starts
        starts += 1
        running.set()
        if starts == 1:
            await asyncio.Event().wait()
        return "second"

    async with here:
        async with here.worker(grace=0.01):
            job = await long.enqueue()
            await running.wait()
        await until(lambda: older_than(here, 3))  # on a younger server nobody sweeps yet
        stopped = time.monotonic()
        async with here.worker():
            assert await job.result(timeout=5) == "second"
        assert time.monotonic() - stopped < 1.5
    assert starts == 2


async def test_cron_fires_once_over_several_workers(app: MakeApp) -> None:
    here = app(lease="1s")
    fired: list[str] = []

    @here.every("250ms", catch_up="skip")
    @here.task
    async def tick(ctx: Context[None]) -> None:
        fired.append(ctx.job_id)

    async with here, here.worker(), here.worker(), here.worker():

        async def enough() -> bool:
            return len(fired) >= 4

        await until(enough)
    assert len(set(fired)) == len(fired)
    moments = sorted(int(each.rpartition("-")[2]) for each in fired)
    assert [b - a for a, b in itertools.pairwise(moments)] == [250] * (len(moments) - 1)
