"""streamq as its README shows it: results, leases, fences and retries are on."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import cycle

from benchmarks.marks import mark
from streamq import Job, StreamQ, Task
from streamq.client.task import BoundTask

REQUIRES: list[str] = []  # the interpreter that runs the harness, and this tree
SETTINGS = "--prefetch 10, as its README advises for many short jobs"
RESULTS = True
JOBS = 30_000

BURN = 100e-6  # seconds of CPU
CALL = 50_000  # jobs an enqueue_many: it answers with a handle for each of them

QUEUES = os.environ.get("BENCH_QUEUES", "default").split(",")  # `enqueue` and `enqueue_many` spread their jobs

app = StreamQ(
    os.environ.get("BENCH_URL"),
    namespace=os.environ.get("BENCH_NAMESPACE", "bench"),
    routes=None if QUEUES == ["default"] else {"*": QUEUES[0]},
)


@app.task(name="add")
async def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@app.task(name="nap")
async def nap(i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


@app.task(name="burn")
async def burn(i: int) -> None:
    mark(i)
    end = time.thread_time() + BURN
    while time.thread_time() < end:
        pass


Adder = Task[[int, int], int] | BoundTask[[int, int], int]
ADDERS: list[Adder] = [add, *(add.using(queue=queue) for queue in QUEUES[1:])]


def worker(concurrency: int) -> list[str]:
    target = "benchmarks.contenders.streamq:app"
    options = ["-Q", ",".join(QUEUES), "-c", str(concurrency), "--prefetch", "10", "--log-level", "warning"]
    return ["-m", "streamq", "worker", target, *options]


class Producer:
    async def enqueue(self, i: int, y: int) -> Job[int]:
        return await ADDERS[i % len(ADDERS)].enqueue(i, y)

    async def enqueue_many(self, count: int) -> None:
        for start in range(0, count, CALL):
            numbers = range(start, min(start + CALL, count))
            await app.enqueue_many(each.s(i, 1) for i, each in zip(numbers, cycle(ADDERS), strict=False))

    async def enqueue_naps(self, count: int) -> None:
        await app.enqueue_many(nap.s(i) for i in range(count))

    async def enqueue_burns(self, count: int) -> None:
        await app.enqueue_many(burn.s(i) for i in range(count))

    async def enqueue_in(self, delay: float, i: int) -> None:
        await add.using(countdown=delay).enqueue(i, 1)

    async def result(self, job: Job[int]) -> int:
        return await job.result(timeout=60)

    async def left(self) -> int:
        found = await asyncio.gather(*(app.queue(queue).info() for queue in QUEUES))
        if dead := sum(info.dead for info in found):
            raise RuntimeError(f"{dead} jobs failed for good")
        return sum(info.queued + info.running + info.scheduled for info in found)

    async def close(self) -> None:
        await app.close()


async def open_producer(url: str) -> Producer:
    await app.open()  # to BENCH_URL, which is the same
    return Producer()
