"""streamq as its README shows it: results, leases, fences and retries are on."""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.marks import mark
from streamq import Job, StreamQ

REQUIRES: list[str] = []  # the interpreter that runs the harness, and this tree
SETTINGS = ""
RESULTS = True
JOBS = 30_000

BURN = 100e-6  # seconds of CPU
CALL = 50_000  # jobs an enqueue_many: it answers with a handle for each of them

app = StreamQ(os.environ.get("BENCH_URL"), namespace="bench")


@app.task
async def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@app.task
async def nap(i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


@app.task
async def burn(i: int) -> None:
    mark(i)
    end = time.thread_time() + BURN
    while time.thread_time() < end:
        pass


def worker(concurrency: int) -> list[str]:
    target = "benchmarks.contenders.streamq:app"
    return ["-m", "streamq", "worker", target, "-c", str(concurrency), "--log-level", "warning"]


class Producer:
    async def enqueue(self, i: int, y: int) -> Job[int]:
        return await add.enqueue(i, y)

    async def enqueue_many(self, count: int) -> None:
        for start in range(0, count, CALL):
            await app.enqueue_many(add.s(i, 1) for i in range(start, min(start + CALL, count)))

    async def enqueue_naps(self, count: int) -> None:
        await app.enqueue_many(nap.s(i) for i in range(count))

    async def enqueue_burns(self, count: int) -> None:
        await app.enqueue_many(burn.s(i) for i in range(count))

    async def enqueue_in(self, delay: float, i: int) -> None:
        await add.using(countdown=delay).enqueue(i, 1)

    async def result(self, job: Job[int]) -> int:
        return await job.result(timeout=60)

    async def left(self) -> int:
        info = await app.queue().info()
        if info.dead:
            raise RuntimeError(f"{info.dead} jobs failed for good")
        return info.queued + info.running + info.scheduled

    async def close(self) -> None:
        await app.close()


async def open_producer(url: str) -> Producer:
    await app.open()  # to BENCH_URL, which is the same
    return Producer()
