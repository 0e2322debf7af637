"""SAQ on Redis, as its README starts it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import uvloop
from saq import Job, Queue

from benchmarks.marks import mark

REQUIRES: list[str] = [
    "saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "uvloop==0.23.0",
    "typing_extensions==4.16.0",  # it imports this and does not ask for it
]  # fmt: skip
SETTINGS = "results polled every 1 ms (0.5 s by default)"
RESULTS = True
JOBS = 6_000

POLL = 0.001  # seconds

queue = Queue.from_url(os.environ["BENCH_URL"])


async def add(ctx: dict[str, Any], *, i: int, y: int) -> int:
    mark(i)
    return i + y


async def nap(ctx: dict[str, Any], *, i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


def settings() -> dict[str, Any]:
    """What the command asks for before it makes its event loop."""
    uvloop.install()
    return {"queue": queue, "functions": [add, nap], "concurrency": int(os.environ["BENCH_CONCURRENCY"])}


def worker(concurrency: int) -> list[str]:
    return ["-m", "saq", "benchmarks.contenders.saq.settings"]  # logs at WARNING unless told otherwise


class Producer:
    enqueue_many = None  # its `batch()` aborts jobs together, it does not send them together

    async def enqueue(self, i: int, y: int) -> Job:
        return await queue.enqueue("add", i=i, y=y)

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            await queue.enqueue("nap", i=i)

    async def enqueue_in(self, delay: float, i: int) -> None:
        await queue.enqueue("add", i=i, y=1, scheduled=time.time() + delay)

    async def result(self, job: Job) -> int:
        """Polls as `queue.apply(poll_interval=...)` does; `refresh(1)` subscribes too late for a quick job: 1 s."""
        while not job.completed:
            await asyncio.sleep(POLL)
            await job.refresh()
        return job.result

    async def left(self) -> int:
        return await queue.count("incomplete")

    async def close(self) -> None:
        await queue.disconnect()


async def open_producer(url: str) -> Producer:
    await queue.connect()  # to BENCH_URL, which is the same
    return Producer()
