"""Results in a Redis of their own: `result_url`."""

from __future__ import annotations

import asyncio

import pytest

from streamq import Job, JobNotFound, State
from tests.conftest import MakeApp


def other_database(url: str) -> str:
    return f"{url}?db=9" if url.startswith("unix") else url.rsplit("/", 1)[0] + "/9"


async def until_gone(job: Job[object]) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await job.status()
            except JobNotFound:
                return
            await asyncio.sleep(0.01)


async def test_records_go_to_the_result_store_and_are_found_there(app: MakeApp, url: str) -> None:
    here = app(result_url=other_database(url), result_ttl="60s")
    reader = app(result_url=other_database(url))
    blind = app()

    @here.task
    async def double(x: int) -> int:
        return 2 * x

    async with here, here.worker():
        job = await double.enqueue(4)
        assert await job.result(timeout=5) == 8  # told by the worker
        failing = await here.enqueue("nobody.knows.it")
        assert (await failing.cancel("not wanted")).value == "cancelled"
        async with reader, blind:
            # The worker tells the caller first, and moves the record then.
            await until_gone(blind.job(job.id, queue="default"))
            assert await reader.job(job.id, queue="default").result(timeout=5) == 8  # read from the store
            assert await reader.job(job.id).status() is State.SUCCESS
            assert await reader.job(failing.id).status() is State.CANCELLED
            with pytest.raises(JobNotFound):  # nothing stays beside the queue
                await blind.job(job.id).status()
