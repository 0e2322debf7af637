"""Waiting for several jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal, TypeVar, overload

from streamq.client.handle import Job
from streamq.core.clock import Duration, seconds
from streamq.errors import ResultTimeout

R = TypeVar("R")


async def as_completed(jobs: Iterable[Job[R]], timeout: Duration | None = None) -> AsyncIterator[Job[R]]:
    """The jobs in the order in which they end, however they end: `await job.result()` of each is at once there.

    `timeout` is for all of them together. Raises `ResultTimeout`.

        async for job in as_completed(jobs, timeout="1m"):
            print(await job.result())
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + seconds(timeout, name="timeout")
    waiting = {asyncio.ensure_future(_ended(job)): job for job in jobs}
    ended: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()
    for each in waiting:
        each.add_done_callback(ended.put_nowait)
    try:
        while waiting:
            try:
                async with asyncio.timeout_at(deadline):
                    each = await ended.get()
            except TimeoutError:
                job = next(iter(waiting.values()))
                message = f"{len(waiting)} of the jobs did not finish within {timeout}: {job.id} is one"
                raise ResultTimeout(message, job.id) from None
            each.exception()  # not ours to raise: the job's result() does
            yield waiting.pop(each)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _ended(job: Job[Any]) -> None:
    await job.result(raises=False)


@overload
async def gather(
    *jobs: Job[R], return_exceptions: Literal[False] = False, timeout: Duration | None = None
) -> list[R]: ...
@overload
async def gather(
    *jobs: Job[R], return_exceptions: bool, timeout: Duration | None = None
) -> list[R | BaseException]: ...
async def gather(
    *jobs: Job[R], return_exceptions: bool = False, timeout: Duration | None = None
) -> list[R] | list[R | BaseException]:
    """The results of all jobs, in their order. The first failure is raised, unless `return_exceptions`.

    `timeout` is for all of them together. Raises what `Job.result` raises.

        one, two = await gather(job_one, job_two, timeout="10s")
    """
    waiting = [asyncio.ensure_future(job.result(timeout)) for job in jobs]
    try:
        return await asyncio.gather(*waiting, return_exceptions=return_exceptions)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
