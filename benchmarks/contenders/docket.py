"""docket (pydocket), tuned: a full worker looks for free slots every few milliseconds, not every tenth of a second."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

import uvloop
from docket import Docket, Execution, Worker

from benchmarks.marks import mark

REQUIRES: list[str] = ["pydocket==0.27.0", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"]
SETTINGS = (
    "minimum_check_interval and scheduling_resolution 5 ms (100 and 250 ms by default), max_connections 200 (its guide "
    "to production: not less than the concurrency)"
)
RESULTS = True
JOBS = 6_000

POLL = timedelta(milliseconds=5)


async def add(i: int, y: int) -> int:
    mark(i)
    return i + y


async def nap(i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


tasks = [add, nap]


def address(url: str) -> str:
    """Its pool has 100 connections by default, and an error for the one after."""
    return f"{url}?max_connections=200"


def worker(concurrency: int) -> list[str]:
    return ["-m", "benchmarks.contenders.docket", str(concurrency)]


class Producer:
    def __init__(self, docket: Docket) -> None:
        self.docket = docket

    async def enqueue(self, i: int, y: int) -> Execution:
        return await self.docket.add(add)(i, y)

    async def enqueue_many(self, count: int) -> None:
        await self.docket.add_many(self.docket.call(add)(i, 1) for i in range(count))

    async def enqueue_naps(self, count: int) -> None:
        await self.docket.add_many(self.docket.call(nap)(i) for i in range(count))

    async def enqueue_in(self, delay: float, i: int) -> None:
        await self.docket.add(add, when=datetime.now(UTC) + timedelta(seconds=delay))(i, 1)

    async def result(self, execution: Execution) -> int:
        return await execution.get_result(timeout=timedelta(seconds=60))

    async def left(self) -> int:
        async with self.docket.redis() as redis:
            return await redis.xlen(self.docket.stream_key) + await redis.zcard(self.docket.queue_key)

    async def close(self) -> None:
        await self.docket.__aexit__(None, None, None)


async def open_producer(url: str) -> Producer:
    return Producer(await Docket(url=address(url)).__aenter__())


if __name__ == "__main__":
    uvloop.run(
        Worker.run(
            url=address(os.environ["BENCH_URL"]),
            concurrency=int(sys.argv[1]),
            minimum_check_interval=POLL,
            scheduling_resolution=POLL,
            tasks=["benchmarks.contenders.docket:tasks"],
        )
    )
