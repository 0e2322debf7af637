"""streaQ, as its README shows it."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from streaq import Worker
from streaq.task import Task

from benchmarks.marks import mark

REQUIRES: list[str] = ["streaq==7.2.0", "coredis==6.9.0", "uvloop==0.23.0"]
SETTINGS = "uvloop by anyio_kwargs"
RESULTS = True
JOBS = 4_000

app = Worker(
    redis_url=os.environ["BENCH_URL"],
    concurrency=int(os.environ["BENCH_CONCURRENCY"]),
    anyio_kwargs={"use_uvloop": True},
)


@app.task
async def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@app.task
async def nap(i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    return ["-m", "benchmarks.contenders.streaq"]  # not `streaq run`: it always logs at INFO


class Producer:
    async def enqueue(self, i: int, y: int) -> Task:
        return await add.enqueue(i, y)

    async def enqueue_many(self, count: int) -> None:
        await app.enqueue_many([add.enqueue(i, 1) for i in range(count)])

    async def enqueue_naps(self, count: int) -> None:
        await app.enqueue_many([nap.enqueue(i) for i in range(count)])

    async def enqueue_in(self, delay: float, i: int) -> None:
        await add.enqueue(i, 1).start(delay=timedelta(seconds=delay))

    async def result(self, task: Task) -> int:
        # 0.1 s of this is coredis' `unsubscription_timeout`, which streaQ does not let us set
        return (await task.result(timeout=60)).result

    async def left(self) -> int:
        return await app.queue_size()

    async def close(self) -> None:
        await app.__aexit__(None, None, None)


async def open_producer(url: str) -> Producer:
    await app.__aenter__()  # to BENCH_URL, which is the same
    return Producer()


if __name__ == "__main__":
    app.run_sync()
