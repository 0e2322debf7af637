"""First steps: a call becomes a job, the job ends, and its owner learns how."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from streamq import (
    Cancellation,
    ConfigurationError,
    Context,
    Event,
    InvalidArguments,
    JobExpired,
    JobNotFound,
    ResultTimeout,
    State,
)

if TYPE_CHECKING:
    from tests.conftest import MakeApp

WAIT = 10.0  # seconds; only a failing test ever waits that long


async def test_a_task_is_enqueued_and_its_result_awaited(app: MakeApp) -> None:
    shop = app()

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    @shop.task
    def shout(text: str, *, times: int = 1) -> str:
        return text.upper() * times

    async with shop, shop.worker():
        job = await add.enqueue(2, y=3)
        assert await job.result(timeout=WAIT) == 5
        assert await job.result(timeout=WAIT) == 5, "a result can be read again"
        assert await (await shout.enqueue("ho", times=2)).result(timeout=WAIT) == "HOHO"
    assert await add(2, 3) == 5
    assert shout("ho") == "HO"


async def test_a_wrong_argument_fails_where_it_is_written(app: MakeApp) -> None:
    shop = app()

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with shop:
        with pytest.raises(InvalidArguments, match=r"(?s)add.*'?y'?"):
            await add.enqueue(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with pytest.raises(InvalidArguments, match="z"):
            await add.enqueue(1, 2, z=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with pytest.raises(InvalidArguments, match="y"):
            await add.enqueue(1, y=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ConfigurationError, match="Did you mean countdown"):
            add.using(countdwon=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert (await shop.queue().info()).queued == 0, "nothing was written"


async def test_a_status_over_a_life(app: MakeApp) -> None:
    shop = app()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @shop.task(max_retries=1, default_retry_delay=0.3, autoretry_for=(OSError,))
    async def work(ctx: Context[None]) -> str:
        begun.set()
        await go_on.wait()
        if ctx.retries == 0:
            raise OSError("not yet")
        return "done"

    retrying = asyncio.Event()

    @shop.on("job.retrying")
    def note(event: Event) -> None:
        retrying.set()

    async with shop:
        delayed = await work.using(countdown="1h").enqueue()
        assert await delayed.status() is State.SCHEDULED
        await delayed.cancel()
        job = await work.enqueue()
        assert await job.status() is State.QUEUED
        assert not await job.ready()
        async with shop.worker():
            await asyncio.wait_for(begun.wait(), WAIT)
            assert await job.status() is State.STARTED
            go_on.set()
            await asyncio.wait_for(retrying.wait(), WAIT)
            assert await job.status() is State.RETRY
            assert await job.result(timeout=WAIT) == "done"
            assert await job.status() is State.SUCCESS
            assert await job.ready()


async def test_info_says_what_happened(app: MakeApp) -> None:
    shop = app()

    @shop.task(name="shop.wrap", priority=4)
    async def wrap(parcel: int) -> int:
        return parcel

    async with shop:
        before = datetime.now(UTC) - timedelta(seconds=5)
        job = await wrap.using(headers={"trace": "abc"}).enqueue(1)
        waiting = await job.info()
        assert (waiting.task, waiting.queue, waiting.priority) == ("shop.wrap", "default", 4)
        assert waiting.headers == {"trace": "abc"}
        assert waiting.started_at is None
        async with shop.worker(name="anna"):
            await job.result(timeout=WAIT)
        info = await job.info()
    assert (info.state, info.attempts, info.retries, info.worker) == (State.SUCCESS, 1, 0, "anna")
    assert info.enqueued_at is not None
    assert info.started_at is not None
    assert info.finished_at is not None
    assert before < info.enqueued_at <= info.started_at <= info.finished_at
    assert info.run is not None
    assert info.error is None


async def test_a_job_is_found_again_by_its_id(app: MakeApp) -> None:
    shop, elsewhere = app(), app()

    @shop.task(queue="mail")
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with shop, elsewhere, shop.worker():
        job = await greet.enqueue("you")
        again = elsewhere.job(job.id, queue="mail")
        assert again == job
        assert await again.result(timeout=WAIT) == "hello you"
        assert await elsewhere.job(job.id).status() is State.SUCCESS, "the queue is looked for"
        unknown = shop.job("no-such-job")
        for question in (unknown.status, unknown.info, unknown.progress, unknown.result, unknown.cancel):
            with pytest.raises(JobNotFound, match="no-such-job") as caught:
                await question()
            assert caught.value.job_id == "no-such-job"


async def test_a_result_that_takes_too_long(app: MakeApp) -> None:
    shop = app()

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with shop:
        job = await add.enqueue(1, 2)
        with pytest.raises(ResultTimeout) as caught:
            await job.result(timeout=0.05)
        assert caught.value.job_id == job.id
        assert await job.cancel() is Cancellation.CANCELLED


async def test_countdown_and_eta(app: MakeApp) -> None:
    shop = app()

    @shop.task
    async def when(ctx: Context[None]) -> float:
        assert ctx.eta is not None
        return (datetime.now(UTC) - ctx.eta).total_seconds()

    async with shop, shop.worker():
        later = await when.using(countdown=0.15).enqueue()
        soon = await when.using(eta=datetime.now(UTC) + timedelta(milliseconds=150)).enqueue()
        past = await when.using(eta=datetime.now(UTC) - timedelta(hours=1)).enqueue()
        assert -0.05 < await later.result(timeout=WAIT) < 2
        assert -0.05 < await soon.result(timeout=WAIT) < 2
        assert 3599 < await past.result(timeout=WAIT) < 3602
    with pytest.raises(ConfigurationError, match="countdown and eta"):
        when.using(countdown=1, eta=datetime.now(UTC))


async def test_what_starts_too_late_expires(app: MakeApp) -> None:
    shop = app()
    ran: list[int] = []

    @shop.task
    async def breakfast(egg: int) -> None:
        ran.append(egg)

    async with shop:
        late = await breakfast.using(expires=datetime.now(UTC) - timedelta(seconds=10)).enqueue(1)
        fine = await breakfast.using(expires="1h").enqueue(2)
        async with shop.worker():
            with pytest.raises(JobExpired):
                await late.result(timeout=WAIT)
            await fine.result(timeout=WAIT)
        assert await late.status() is State.EXPIRED
    assert ran == [2]
