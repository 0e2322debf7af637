"""arq, tuned: its worker and its results are polled every few milliseconds instead of every half second."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.constants import default_queue_name
from arq.jobs import Job
from arq.worker import Worker

from benchmarks.marks import mark

REQUIRES: list[str] = ["arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"]
SETTINGS = "poll_delay 5 ms for jobs and 1 ms for results (0.5 s each by default), log_results off"
RESULTS = True
JOBS = 6_000

POLL_WORK, POLL_RESULT = 0.005, 0.001  # seconds


async def add(ctx: dict[str, Any], i: int, y: int) -> int:
    mark(i)
    return i + y


async def nap(ctx: dict[str, Any], i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    return ["-m", "benchmarks.contenders.arq", str(concurrency)]


class Producer:
    enqueue_many = None  # it has no bulk call

    def __init__(self, pool: ArqRedis) -> None:
        self.pool = pool

    async def enqueue(self, i: int, y: int) -> Job:
        return await self.pool.enqueue_job("add", i, y)

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            await self.pool.enqueue_job("nap", i)

    async def enqueue_in(self, delay: float, i: int) -> None:
        await self.pool.enqueue_job("add", i, 1, _defer_by=delay)

    async def result(self, job: Job) -> int:
        return await job.result(timeout=60, poll_delay=POLL_RESULT)

    async def left(self) -> int:
        return await self.pool.zcard(default_queue_name)  # running jobs are in it until their results are stored

    async def close(self) -> None:
        await self.pool.aclose()


async def open_producer(url: str) -> Producer:
    return Producer(await create_pool(RedisSettings.from_dsn(url)))


if __name__ == "__main__":
    uvloop.install()
    Worker(
        [add, nap],
        redis_settings=RedisSettings.from_dsn(os.environ["BENCH_URL"]),
        max_jobs=int(sys.argv[1]),
        poll_delay=POLL_WORK,
        log_results=False,
    ).run()
