"""When things go wrong: retries, signals, dead letters, time limits, and entries that nobody can read."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from streamq import (
    Context,
    JobError,
    JobFailed,
    JobNotFound,
    MaxRetriesExceeded,
    Reject,
    Retry,
    Snooze,
    SoftTimeLimitExceeded,
    State,
    gather,
)

if TYPE_CHECKING:
    from tests.conftest import MakeApp

WAIT = 10.0  # seconds; only a failing test ever waits that long


async def test_a_retry_and_then_success(app: MakeApp) -> None:
    shop = app()

    @shop.task(max_retries=5, autoretry_for=(ConnectionError,), default_retry_delay=0.02)
    async def fetch(ctx: Context[None], url: str) -> str:
        if ctx.retries < 2:
            raise ConnectionError(f"{url} is away")
        return f"attempt {ctx.attempt}"

    @shop.task(max_retries=1)
    async def ask(ctx: Context[None]) -> int:
        if not ctx.retries:
            raise Retry(countdown=0.02, reason="busy")
        return ctx.retries

    async with shop, shop.worker():
        job = await fetch.enqueue("example.org")
        assert await job.result(timeout=WAIT) == "attempt 3"
        info = await job.info()
        assert (info.state, info.attempts, info.retries) == (State.SUCCESS, 3, 2)
        assert [failure.attempt for failure in info.failures] == [1, 2]
        assert info.failures[0].message == "example.org is away"
        assert await (await ask.enqueue()).result(timeout=WAIT) == 1


async def test_a_snooze_spends_no_attempt(app: MakeApp) -> None:
    shop = app()
    starts: list[int] = []

    @shop.task(max_retries=0)
    async def patient(ctx: Context[None]) -> int:
        starts.append(ctx.retries)
        if len(starts) < 3:
            raise Snooze(0.02)
        return ctx.attempt

    async with shop, shop.worker():
        job = await patient.enqueue()
        assert await job.result(timeout=WAIT) == 1
        assert (await job.info()).retries == 0
    assert starts == [0, 0, 0]


async def test_a_rejection_is_a_dead_letter_at_once(app: MakeApp) -> None:
    shop = app()

    @shop.task(name="shop.deliver", max_retries=5, autoretry_for=(Exception,))
    async def deliver(address: str) -> None:
        raise Reject(f"{address} does not exist")

    async with shop, shop.worker():
        job = await deliver.enqueue("Nowhere 1")
        with pytest.raises(JobFailed, match="Nowhere 1 does not exist") as caught:
            await job.result(timeout=WAIT)
        assert not isinstance(caught.value, MaxRetriesExceeded)
        assert await job.status() is State.FAILURE
        letter = await shop.dead_letters().show(job.id)
        assert (letter.task, letter.reason, letter.attempts) == ("shop.deliver", "rejected", 1)
        assert "Nowhere 1 does not exist" in letter.error
        assert await shop.dead_letters().discard(job.id) == 1
        assert await job.status() is State.FAILURE, "its record stays"


async def test_dead_letters_are_listed_shown_retried_and_discarded(app: MakeApp) -> None:
    shop = app()
    mended = False

    @shop.task(name="shop.import", max_retries=2, autoretry_for=(OSError,), default_retry_delay=0.01)
    async def load(page: int) -> int:
        if not mended:
            raise OSError("disk full")
        return page

    @shop.task(name="shop.parse")
    async def parse(page: int) -> int:
        raise ValueError(f"page {page} is torn")

    dead = shop.dead_letters()
    async with shop, shop.worker():
        failed = await load.enqueue(7)
        with pytest.raises(MaxRetriesExceeded, match="disk full") as caught:
            await failed.result(timeout=WAIT)
        assert caught.value.error.endswith("OSError")
        assert "load" in caught.value.traceback, "the traceback is the worker's"
        assert (await failed.info()).attempts == 3
        torn = await parse.enqueue(1)
        assert isinstance(await torn.result(timeout=WAIT, raises=False), JobFailed)

        assert {letter.job_id for letter in await dead.list()} == {failed.id, torn.id}
        assert [letter.job_id for letter in await dead.list(task="shop.imp*")] == [failed.id]
        assert [letter.job_id for letter in await dead.list(error="torn")] == [torn.id]
        assert await dead.list(older_than="1h") == []
        shown = await dead.show(failed.id)
        assert (shown.reason, shown.attempts, len(shown.failures)) == ("exhausted", 3, 3)
        assert (await shop.queue().info()).dead == 2

        mended = True
        assert await dead.retry(failed.id) == 1
        assert await failed.result(timeout=WAIT) == 7
        assert await dead.discard(task="shop.parse") == 1
        assert await dead.list() == []
        for ask in (dead.show, dead.retry, dead.discard):
            with pytest.raises(JobNotFound):
                await ask(torn.id)


async def test_an_unlisted_failure_is_not_retried(app: MakeApp) -> None:
    shop = app()
    runs: list[int] = []

    @shop.task(max_retries=5, autoretry_for=(OSError,))
    async def divide(x: int) -> float:
        runs.append(x)
        return 1 / x

    async with shop, shop.worker():
        with pytest.raises(JobFailed, match="ZeroDivisionError") as caught:
            await (await divide.enqueue(0)).result(timeout=WAIT)
        assert caught.value.error.endswith("ZeroDivisionError")
        await shop.dead_letters().discard()
    assert runs == [0]


async def test_the_soft_limit_speaks_and_the_hard_one_ends(app: MakeApp) -> None:
    shop = app()
    cleaned = asyncio.Event()

    @shop.task(soft_time_limit=0.05, time_limit="30s")
    async def tidy() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            return "partial"
        return "whole"

    @shop.task(soft_time_limit=0.05)
    async def careless() -> None:
        await asyncio.Event().wait()

    @shop.task
    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with shop, shop.worker():
        assert await (await tidy.enqueue()).result(timeout=WAIT) == "partial"
        with pytest.raises(JobFailed, match="SoftTimeLimitExceeded"):
            await (await careless.enqueue()).result(timeout=WAIT)
        with pytest.raises(JobFailed, match="TimeLimitExceeded"):
            await (await stuck.using(time_limit=0.05).enqueue()).result(timeout=WAIT)
        assert cleaned.is_set()
        await shop.dead_letters().discard()


async def test_a_plain_function_fails_at_its_limit_while_its_thread_goes_on(
    app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    shop = app()
    let_go = threading.Event()

    @shop.task(time_limit=0.05)
    def block() -> bool:
        return let_go.wait(WAIT)

    @shop.task(soft_time_limit=0.01)
    def brief() -> str:
        return "done"

    try:
        async with shop, shop.worker():
            with pytest.raises(JobFailed, match="TimeLimitExceeded"):
                await (await block.enqueue()).result(timeout=WAIT)
            assert await (await brief.enqueue()).result(timeout=WAIT) == "done"
            await shop.dead_letters().discard()
            let_go.set()
    finally:
        let_go.set()
    assert "cannot be stopped" in caplog.text


async def test_a_job_of_an_unknown_task_waits_for_a_worker_that_knows_it(
    app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = app(), app()

    @old.task(name="shop.known")
    async def known() -> str:
        return "known"

    @new.task(name="shop.novelty")
    async def novelty(x: int) -> int:
        return x

    async with old, new:
        job = await old.send_task("shop.novelty", (3,))
        async with old.worker():
            neighbour = await known.enqueue()
            assert await neighbour.result(timeout=WAIT) == "known"
        assert await job.status() is State.PENDING
        assert "shop.novelty" in caplog.text
        assert await old.dead_letters().list() == []
        await job.cancel()
        again = await novelty.enqueue(4)
        async with new.worker():
            assert await again.result(timeout=WAIT) == 4


async def test_garbage_on_the_stream_hurts_nobody_else(app: MakeApp, url: str, namespace: str) -> None:
    shop = app()

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with shop:
        before = await add.enqueue(1, 1)
        async with redis.asyncio.from_url(url) as raw:
            stream = f"sq:{{{namespace}/default}}:s:0"
            await raw.xadd(stream, {"i": "garbage-1", "j": b"\xc1 no msgpack"})
            await raw.xadd(stream, {"what": "no field of ours"})
            after = await add.enqueue(2, 2)
            async with shop.worker():
                assert await gather(before, after, timeout=WAIT) == [2, 4]
                with pytest.raises(JobFailed):
                    await shop.job("garbage-1", queue="default").result(timeout=WAIT)
            letters = await shop.dead_letters().list()
            assert [letter.reason for letter in letters] == ["unreadable", "unreadable"]
            assert "garbage-1" in {letter.job_id for letter in letters}
            assert await raw.xlen(stream) == 0
        with pytest.raises(JobError, match="cannot be retried"):
            await shop.dead_letters().retry("garbage-1")
        assert await shop.dead_letters().discard() == 2
