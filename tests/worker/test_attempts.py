"""One attempt under every option that changes how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from streamq import (
    Context,
    Event,
    JobCancelled,
    JobExpired,
    JobFailed,
    MaxRetriesExceeded,
    Retry,
    SoftTimeLimitExceeded,
    State,
    TimeLimitExceeded,
    current_job_id,
)
from streamq.worker.held import Cause
from tests.conftest import MakeApp
from tests.worker.waits import until


async def test_early_acknowledgement_leaves_no_entry_and_waiters_wait_on(app: MakeApp) -> None:
    here, running, finish = app(lease="1s"), asyncio.Event(), asyncio.Event()

    @here.task(acks_early=True)
    async def once() -> str:
        running.set()
        await finish.wait()
        return "done"

    async with here, here.worker() as worker:
        job = await once.enqueue()
        waiting = asyncio.create_task(job.result(timeout=5))
        await running.wait()
        found = await here.broker.find("default", job.id)
        assert (found.where, found.consumer) == ("gone", "")
        assert found.record is not None
        assert (found.record.state, found.record.worker) == (State.STARTED, worker.name)
        assert not waiting.done()
        finish.set()
        assert await waiting == "done"


async def test_a_renewal_that_finds_the_entry_gone_takes_no_early_acknowledged_job_away(app: MakeApp) -> None:
    """The heartbeat listed the entry, the acknowledgement overtook it: the entry is gone, the job is still ours."""
    here, running, finish = app(lease="1s"), asyncio.Event(), asyncio.Event()

    @here.task(acks_early=True)
    async def once() -> str:
        running.set()
        await finish.wait()
        return "done"

    async with here, here.worker() as worker:
        job = await once.enqueue()
        await running.wait()
        assert worker.crew is not None
        (holding,) = worker.crew.lanes["default"].unheld
        holding.cancel(Cause.LOST, "another worker has it")
        finish.set()
        assert await job.result(timeout=5) == "done"


async def test_early_acknowledgement_and_a_failure(app: MakeApp) -> None:
    here = app(lease="1s")
    told: list[str] = []

    @here.task(acks_early=True)
    async def fails() -> None:
        raise KeyError("lost for good")

    @here.task(acks_early=True, max_retries=1, default_retry_delay=0.01)
    async def twice(ctx: Context[None]) -> int:
        if not ctx.retries:
            raise Retry
        return ctx.retries

    @here.on("*")
    def hear(event: Event) -> None:
        if event.name in ("job.succeeded", "job.failed"):
            told.append(event.name)

    async with here, here.worker():
        with pytest.raises(JobFailed, match="lost for good"):
            await (await fails.enqueue()).result(timeout=5)
        assert await (await twice.enqueue()).result(timeout=5) == 1
        await until(lambda: told == ["job.failed", "job.succeeded"])


async def test_a_job_cancelled_while_it_is_acknowledged_early_ends_once(app: MakeApp) -> None:
    """The cancellation arrives while the acknowledgement is under way: the STARTED record must not be the last."""
    here, started = app(lease="1s"), 0

    @here.task(acks_early=True)
    async def once() -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    async with here, here.worker(concurrency=1, grace=0) as worker:
        crew = worker.crew
        assert crew is not None
        lane, broker = crew.lanes["default"], here.broker
        through, turn, held_up = asyncio.Event(), broker.turn, asyncio.Event()

        async def slow_turn(*args: object, **more: object) -> object:
            if args[2]:  # settlements
                held_up.set()
                await through.wait()
            return await turn(*args, **more)  # type: ignore[arg-type]

        broker.turn = slow_turn  # type: ignore[method-assign, assignment]
        job = await once.enqueue()
        await held_up.wait()
        (holding,) = lane.held.values()
        holding.cancel(Cause.USER, "changed my mind")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        through.set()
        with pytest.raises(JobCancelled, match="changed my mind"):
            await job.result(timeout=5)
        await until(lambda: crew.slots.empty and not lane.held and not lane.unheld)
        broker.turn = turn  # type: ignore[method-assign]
    assert started == 0


async def test_a_failure_that_is_not_acknowledged_is_a_crash(app: MakeApp) -> None:
    here, starts = app(lease="0.3s", max_crashes=2), 0

    @here.task(acks_on_failure=False)
    async def fails() -> None:
        nonlocal starts
        starts += 1
        raise KeyError("again")

    async with here, here.worker():
        with pytest.raises(JobFailed, match="3 deliveries ended without a report"):
            await (await fails.enqueue()).result(timeout=10)
        letter = await here.broker.dead("default")
    assert [each.reason.value for each in letter] == ["crashed"]
    assert starts == 3


async def test_plain_functions_see_context_variables_and_share_a_bounded_pool(app: MakeApp) -> None:
    here = app(lease="1s")
    at_once, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    @here.task
    def meet() -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        both.wait(5)
        with lock:
            at_once -= 1
        return current_job_id.get() or ""

    async with here, here.worker(concurrency=2):
        jobs = await here.enqueue_many(meet.s() for _ in range(8))
        assert [await job.result(timeout=5) for job in jobs] == [job.id for job in jobs]
    assert most == 2


async def test_at_its_hard_limit_a_plain_function_fails_and_its_thread_goes_on(app: MakeApp) -> None:
    here, let_go, ended = app(lease="1s"), threading.Event(), threading.Event()

    @here.task(time_limit=0.05)
    def long() -> None:
        let_go.wait(10)
        ended.set()

    async with here, here.worker(concurrency=1):
        with pytest.raises(JobFailed, match="TimeLimitExceeded"):
            await (await long.enqueue()).result(timeout=5)
        assert not ended.is_set()
        let_go.set()
        await until(ended.is_set)


async def test_the_hard_limit_is_retried_if_it_is_listed(app: MakeApp) -> None:
    here, starts = app(lease="1s"), 0

    @here.task(time_limit=0.02, autoretry_for=(TimeLimitExceeded,), max_retries=2, default_retry_delay=0.01)
    async def long() -> None:
        nonlocal starts
        starts += 1
        await asyncio.Event().wait()

    async with here, here.worker():
        with pytest.raises(MaxRetriesExceeded, match="TimeLimitExceeded"):
            await (await long.enqueue()).result(timeout=5)
    assert starts == 3


async def test_both_limits_of_a_task_that_ignores_the_first(app: MakeApp) -> None:
    here, seen = app(lease="1s"), []

    @here.task(soft_time_limit=0.02, time_limit=0.06)
    async def deaf() -> str:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except SoftTimeLimitExceeded:
                seen.append("soft")
            except asyncio.CancelledError:
                seen.append("hard")
        return "this does not count"

    async with here, here.worker():
        with pytest.raises(JobFailed, match="TimeLimitExceeded"):
            await (await deaf.enqueue()).result(timeout=5)
    assert seen == ["soft", "hard"]


async def test_an_expired_job_never_starts(app: MakeApp) -> None:
    here, started = app(lease="1s"), []

    @here.task
    async def note(name: str) -> None:
        started.append(name)

    async with here:
        late = await note.using(expires="1ms").enqueue("late")
        early = await note.using(expires="1h").enqueue("early")
        expired = time.monotonic() + 0.01
        await until(lambda: time.monotonic() > expired)
        async with here.worker():
            await early.result(timeout=5)
            with pytest.raises(JobExpired):
                await late.result(timeout=5)
    assert started == ["early"]


async def test_a_cancellation_is_heard_at_the_next_renewal_without_the_bell(app: MakeApp) -> None:
    here, running = app(lease="0.5s"), asyncio.Event()

    @here.task
    async def wait() -> None:
        running.set()
        await asyncio.Event().wait()

    async with here, here.worker() as worker:
        assert worker.crew is not None
        worker.crew.heartbeat.wake = lambda: None  # type: ignore[method-assign]
        job = await wait.enqueue()
        await running.wait()
        asked = time.monotonic()
        await job.cancel("no")
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
        assert time.monotonic() - asked < 0.5


async def test_cancellation_races_completion_and_one_of_them_wins(app: MakeApp) -> None:
    here = app(lease="1s")
    ends: dict[str, list[str]] = {}

    @here.task
    async def brief() -> str:
        await asyncio.sleep(0.001)
        return "done"

    @here.on("*")
    def hear(event: Event) -> None:
        if event.name in ("job.succeeded", "job.cancelled", "job.failed"):
            ends.setdefault(event.job_id, []).append(event.name)

    async with here, here.worker() as worker:
        crew = worker.crew
        assert crew is not None
        jobs = await here.enqueue_many(brief.s() for _ in range(100))
        await asyncio.gather(*(job.cancel("race") for job in jobs))
        results = await asyncio.gather(*(job.result(timeout=5, raises=False) for job in jobs))
        await until(lambda: crew.slots.empty and not crew.lanes["default"].held)
    assert all(result == "done" or isinstance(result, JobCancelled) for result in results)
    assert all(len(each) == 1 for each in ends.values())


async def test_a_variable_set_in_one_job_is_unseen_in_the_next(app: MakeApp) -> None:
    here, variable = app(lease="1s"), contextvars.ContextVar("variable", default="clean")

    @here.task
    async def stain() -> str:
        before = variable.get()
        variable.set("stained")
        return before

    async with here, here.worker(concurrency=1):
        jobs = await here.enqueue_many(stain.s() for _ in range(3))
        assert [await job.result(timeout=5) for job in jobs] == ["clean"] * 3
