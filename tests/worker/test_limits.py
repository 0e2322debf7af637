"""The soft limit: an exception raised where the task waits."""

from __future__ import annotations

import asyncio

import pytest

from streamq import JobFailed, SoftTimeLimitExceeded
from streamq.worker.limits import SoftLimit
from tests.conftest import MakeApp


async def test_the_task_can_catch_it_where_it_waits_and_go_on() -> None:
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "tidied up"
        return "never"

    assert await SoftLimit(work(), 0.01) == "tidied up"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_uncaught_it_is_an_ordinary_failure() -> None:
    with pytest.raises(SoftTimeLimitExceeded) as caught:
        await SoftLimit(asyncio.Event().wait(), 0.01)
    assert not isinstance(caught.value, asyncio.CancelledError)


async def test_a_task_that_is_quicker_never_sees_it() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await SoftLimit(work(), 60) == 7


async def test_children_of_a_task_group_end_with_it() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("child")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    with pytest.raises(SoftTimeLimitExceeded):
        await SoftLimit(work(), 0.01)
    assert ended == ["child"]


async def test_a_timeout_inside_the_task_is_still_its_own() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "its own"
        return "never"

    assert await SoftLimit(work(), 60) == "its own"


async def test_a_cancellation_from_outside_stays_one() -> None:
    waiting = asyncio.Event()

    async def work() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def limited() -> None:
        await SoftLimit(work(), 60)

    task = asyncio.create_task(limited())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_application_can_limit_all_its_tasks(app: MakeApp) -> None:
    shop = app(time_limit="50ms")

    @shop.task(name="slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    @shop.task(name="patient", time_limit="30s")
    async def patient() -> str:
        await asyncio.sleep(0.1)
        return "done"

    async with shop, shop.worker():
        with pytest.raises(JobFailed, match=r"time limit of 0\.05 s"):
            await (await slow.enqueue()).result(timeout=10)
        assert await (await patient.enqueue()).result(timeout=10) == "done"
        await shop.dead_letters().discard()
