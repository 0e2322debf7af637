"""Asking for more: order, one job for many calls, cancelling, progress, waiting for many, synchronous callers."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from streamq import (
    Cancellation,
    Context,
    Event,
    IdempotencyMismatch,
    InvalidArguments,
    Job,
    JobCancelled,
    JobFailed,
    JobNotFound,
    ResultExpired,
    ResultTimeout,
    State,
    as_completed,
    gather,
)

if TYPE_CHECKING:
    from tests.conftest import MakeApp

WAIT = 10.0  # seconds; only a failing test ever waits that long


async def test_priorities_decide_who_is_next(app: MakeApp) -> None:
    shop = app()
    order: list[str] = []

    @shop.task
    async def serve(guest: str) -> None:
        order.append(guest)

    async with shop:
        jobs = [
            await serve.using(priority=level).enqueue(guest)
            for guest, level in (("walk-in", 0), ("regular", 5), ("king", 9), ("second walk-in", 0), ("prince", 9))
        ]
        async with shop.worker(concurrency=1):
            await gather(*jobs, timeout=WAIT)
    assert order == ["king", "prince", "regular", "walk-in", "second walk-in"]


async def test_an_idempotency_key_makes_one_job_of_many_calls(app: MakeApp) -> None:
    shop = app()
    charged: list[int] = []

    @shop.task
    async def charge(order: int, *, fail: bool = False) -> str:
        charged.append(order)
        if fail and charged.count(order) == 1:
            raise ValueError("card declined")
        return f"charged {order}"

    async with shop, shop.worker():
        once = charge.using(idempotency_key="order-1")
        jobs = await asyncio.gather(*(once.enqueue(1) for _ in range(20)))
        assert len({job.id for job in jobs}) == 1
        assert sorted(job.deduplicated for job in jobs) == [False] + [True] * 19
        assert await jobs[0].result(timeout=WAIT) == "charged 1"
        after = await once.enqueue(1)
        assert after.deduplicated
        assert await after.result(timeout=WAIT) == "charged 1"

        with pytest.raises(IdempotencyMismatch, match="order-1") as caught:
            await once.enqueue(2)
        assert caught.value.job_id == jobs[0].id

        declined = charge.using(idempotency_key="order-3")
        failed = await declined.enqueue(3, fail=True)
        with pytest.raises(JobFailed, match="card declined"):
            await failed.result(timeout=WAIT)
        assert (await declined.enqueue(3, fail=True)).deduplicated, "a failure is an answer too"
        anew = await declined.using(on_failed="retry").enqueue(3, fail=True)
        assert await anew.result(timeout=WAIT) == "charged 3"
        await shop.dead_letters().discard()
    assert charged == [1, 3, 3]


async def test_a_waiting_job_is_cancelled(app: MakeApp) -> None:
    shop = app()
    ran: list[str] = []

    @shop.task
    async def ship(order: str) -> None:
        ran.append(order)

    async with shop:
        queued = await ship.enqueue("queued")
        delayed = await ship.using(countdown="1h").enqueue("delayed")
        for job in (queued, delayed):
            assert await job.cancel("the order was withdrawn") is Cancellation.CANCELLED
            with pytest.raises(JobCancelled) as caught:
                await job.result(timeout=WAIT)
            assert caught.value.reason == "the order was withdrawn"
            assert await job.status() is State.CANCELLED
        async with shop.worker():
            await (await ship.enqueue("other")).result(timeout=WAIT)
    assert ran == ["other"]


async def test_a_running_job_is_told_and_a_finished_one_stays(app: MakeApp) -> None:
    shop = app()
    begun, cleaned = asyncio.Event(), asyncio.Event()

    @shop.task
    async def ship() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with shop, shop.worker():
        job = await ship.enqueue()
        await asyncio.wait_for(begun.wait(), WAIT)
        assert await job.cancel("withdrawn") is Cancellation.CANCELLING
        with pytest.raises(JobCancelled, match="withdrawn"):
            await job.result(timeout=WAIT)
        assert cleaned.is_set()
        assert await job.cancel() is Cancellation.FINISHED
        assert await job.status() is State.CANCELLED


async def test_progress_is_seen_from_outside(app: MakeApp) -> None:
    shop = app()
    said, go_on = asyncio.Event(), asyncio.Event()

    @shop.task
    async def scan(ctx: Context[None]) -> str:
        await ctx.progress(3, total=12, note="third page")
        said.set()
        await go_on.wait()
        return "scanned"

    @shop.task
    def sort(ctx: Context[None]) -> str:
        ctx.progress_sync(1, total=2)
        return "sorted"

    async with shop, shop.worker():
        job = await scan.enqueue()
        await asyncio.wait_for(said.wait(), WAIT)
        progress = await job.progress()
        assert progress is not None
        assert (progress.done, progress.total, progress.note, progress.fraction) == (3, 12, "third page", 0.25)
        assert (await job.info()).progress == progress
        go_on.set()
        assert await job.result(timeout=WAIT) == "scanned"
        assert await (await sort.enqueue()).result(timeout=WAIT) == "sorted"


async def test_many_jobs_are_awaited_together(app: MakeApp) -> None:
    shop = app()
    gates = [asyncio.Event() for _ in range(3)]

    @shop.task
    async def step(number: int) -> int:
        await gates[number].wait()
        return number

    @shop.task
    async def fall() -> int:
        raise ValueError("fell")

    async with shop, shop.worker():
        jobs: list[Job[int]] = [await step.enqueue(number) for number in range(3)]
        gates[2].set()
        ended: list[int] = []
        async for job in as_completed(jobs, timeout=WAIT):
            ended.append(await job.result(timeout=WAIT))
            gates[{2: 0, 0: 1, 1: 1}[ended[-1]]].set()
        assert ended == [2, 0, 1]
        assert await gather(*jobs, timeout=WAIT) == [0, 1, 2]

        fallen = await fall.enqueue()
        with pytest.raises(JobFailed, match="fell"):
            await gather(*jobs, fallen, timeout=WAIT)
        mixed = await gather(jobs[0], fallen, return_exceptions=True, timeout=WAIT)
        assert mixed[0] == 0
        assert isinstance(mixed[1], JobFailed)
        await shop.dead_letters().discard()
        for gate in gates:
            gate.clear()
        stuck = await step.enqueue(0)
        with pytest.raises(ResultTimeout):
            async for _ in as_completed([stuck], timeout=0.05):
                pass
        gates[0].set()
        await stuck.result(timeout=WAIT)


async def test_two_thousand_at_once(app: MakeApp) -> None:
    shop = app()

    @shop.task
    async def square(x: int) -> int:
        return x * x

    async with shop, shop.worker():
        jobs = await shop.enqueue_many(square.s(i) for i in range(2_000))
        assert len({job.id for job in jobs}) == 2_000
        assert await gather(*jobs, timeout=30) == [i * i for i in range(2_000)]
        info = await shop.queue().info()
        assert (info.queued, info.dead) == (0, 0)


async def test_code_without_an_event_loop(app: MakeApp) -> None:
    shop = app()
    callers: list[str] = []

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    def view() -> int:
        callers.append(threading.current_thread().name)
        return add.enqueue_sync(2, 3).get(timeout=WAIT) + add.using(priority=9).enqueue_sync(1, 1).result_sync(WAIT)

    async with shop, shop.worker():
        assert await asyncio.to_thread(view) == 7
        with pytest.raises(InvalidArguments):
            add.enqueue_sync(2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        job = add.enqueue_sync(20, 22)
        assert await job.result(timeout=WAIT) == 42, "on the event loop it works too"
    assert callers != [threading.current_thread().name]


async def test_a_result_nobody_wants(app: MakeApp) -> None:
    shop = app()
    done: list[str] = []
    ended = asyncio.Event()

    @shop.task(ignore_result=True)
    async def log(line: str) -> str:
        done.append(line)
        return line

    @shop.on("job.succeeded")
    def note(event: Event) -> None:
        ended.set()

    async with shop, shop.worker():
        job = await log.enqueue("hello")
        await asyncio.wait_for(ended.wait(), WAIT)
        with pytest.raises((ResultExpired, JobNotFound)):
            await job.result(timeout=WAIT)
        kept = await log.using(ignore_result=False, result_ttl="1m").enqueue("again")
        assert await kept.result(timeout=WAIT) == "again"
    assert done == ["hello", "again"]
