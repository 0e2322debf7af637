"""What a first acceptance found, so that it stays mended."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamq import (
    Context,
    InvalidArguments,
    JobFailed,
    ResultExpired,
    State,
)
from tests.conftest import MakeApp


async def test_the_same_call_written_otherwise_is_the_same_call(app: MakeApp) -> None:
    here = app()

    @here.task
    async def pay(order: int, currency: str = "EUR") -> str:
        return currency

    async with here, here.worker():
        once = pay.using(idempotency_key="order-7")
        jobs = [await once.enqueue(7), await once.enqueue(order=7), await once.enqueue(7, currency="EUR")]
        assert len({job.id for job in jobs}) == 1
        assert [job.deduplicated for job in jobs] == [False, True, True]
        assert await jobs[2].result(timeout=5) == "EUR"


async def test_info_tells_of_a_running_and_of_a_finished_job(app: MakeApp) -> None:
    here = app()
    started, go_on = asyncio.Event(), asyncio.Event()

    @here.task
    async def work(ctx: Context[None]) -> None:
        started.set()
        await go_on.wait()

    async with here, here.worker():
        job = await work.using(priority=9, headers={"trace": "1"}).enqueue()
        await started.wait()
        running = await job.info()
        assert running.state is State.STARTED
        assert running.started_at is not None
        assert running.wait is not None
        assert running.run is not None
        go_on.set()
        await job.result(timeout=5)
        finished = await job.info()
        assert (finished.priority, finished.headers) == (9, {"trace": "1"})


async def test_a_result_that_is_not_kept_has_one_answer(app: MakeApp) -> None:
    here = app()

    @here.task(result_ttl=0)
    async def two() -> int:
        return 2

    async with here:
        job = await two.enqueue()
        waiting = asyncio.ensure_future(job.result(timeout=5))
        while not await here.broker.line("commands").call("HEXISTS", here.broker.keys("default").side, f"w:{job.id}"):
            await asyncio.sleep(0)
        async with here.worker():
            with pytest.raises(ResultExpired):
                await waiting
            with pytest.raises(ResultExpired):
                await job.result(timeout=5)


async def test_a_return_value_that_cannot_be_kept_is_named(app: MakeApp) -> None:
    here = app()

    @here.task(name="bad")
    async def bad() -> object:
        return object()

    async with here, here.worker():
        with pytest.raises(JobFailed, match="the return value of 'bad'") as caught:
            await (await bad.enqueue()).result(timeout=5)
        assert caught.value.error == "streamq.InvalidResult"
        assert "runner.py" not in caught.value.traceback


async def test_leaving_a_worker_by_an_exception_gives_back_at_once(app: MakeApp) -> None:
    here = app()
    started = asyncio.Event()

    @here.task
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with here:
        job = await endless.enqueue()
        async with asyncio.timeout(5):  # the grace is 25 s
            with contextlib.suppress(ZeroDivisionError):
                async with here.worker():
                    await started.wait()
                    raise ZeroDivisionError
        assert await job.status() is State.QUEUED
        assert (await job.cancel()).value == "cancelled"


async def test_a_crashed_letter_names_its_task(app: MakeApp) -> None:
    here = app(lease="1s", max_crashes=1)  # shorter, and a busy machine loses a lease more

    @here.task(name="never.acknowledged", acks_on_failure=False)
    async def refuse() -> None:
        raise ValueError("no")

    async with here, here.worker():
        job = await refuse.enqueue()
        with pytest.raises(JobFailed, match="deliveries ended without a report"):
            await job.result(timeout=10)
        (letter,) = await here.dead_letters().list(task="never.acknowledged")
        assert (letter.task, letter.attempts) == ("never.acknowledged", 2)


async def test_what_is_no_call_is_refused_in_words(app: MakeApp) -> None:
    here = app()
    async with here:
        with pytest.raises(InvalidArguments, match=r"write task\.s"):
            await here.enqueue_many([1])  # type: ignore[list-item]


async def test_a_call_that_retries_a_failed_one_answers_its_dead_letter(app: MakeApp) -> None:
    here = app()
    fails = [True]

    @here.task
    async def sometimes() -> str:
        if fails and fails.pop():
            raise ValueError("once")
        return "done"

    async with here, here.worker():
        first = await sometimes.using(idempotency_key="k").enqueue()
        with pytest.raises(JobFailed):
            await first.result(timeout=5)
        assert len(await here.dead_letters().list()) == 1
        again = await sometimes.using(idempotency_key="k", on_failed="retry").enqueue()
        assert await again.result(timeout=5) == "done"
        assert await here.dead_letters().list() == []  # retried as well, the same key would run twice
