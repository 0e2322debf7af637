"""One scenario a process: `python -m benchmarks.scenarios NAME`, with STREAMQ_URL set. Prints one JSON object."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
import uvloop

from benchmarks.tasks import add, app
from streamq.broker.broker import Turn
from streamq.core.ids import new_id

JOBS = 20_000


async def bulk() -> dict[str, float]:
    """enqueue_many of 20,000 jobs, one await."""
    async with app:
        await add.enqueue(0, 0)
        start = time.perf_counter()
        await app.enqueue_many(add.s(i, i) for i in range(JOBS))
        return {"per_second": JOBS / (time.perf_counter() - start)}


async def concurrent() -> dict[str, float]:
    """20,000 enqueues from 100 coroutines."""
    async with app:
        await add.enqueue(0, 0)

        async def produce() -> None:
            for i in range(JOBS // 100):
                await add.enqueue(i, i)

        start = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(100)))
        return {"per_second": JOBS / (time.perf_counter() - start)}


async def sequential() -> dict[str, float]:
    """2,000 enqueues, one after the other."""
    async with app:
        await add.enqueue(0, 0)
        start = time.perf_counter()
        for i in range(2_000):
            await add.enqueue(i, i)
        return {"per_second": 2_000 / (time.perf_counter() - start)}


async def drain(concurrency: int) -> dict[str, float]:
    """20,000 queued no-ops: from the first delivery to the last acknowledgement; results, fences and leases on."""
    async with app:
        await app.enqueue_many(add.s(i, i) for i in range(JOBS))
        turn, marks = app.broker.turn, [0.0, 0.0]

        async def watched(*args: Any, **kwargs: Any) -> Turn:
            answer = await turn(*args, **kwargs)
            marks[0] = marks[0] or time.perf_counter()
            if answer.replies:
                marks[1] = time.perf_counter()
            return answer

        app.broker.turn = watched  # type: ignore[method-assign]
        cpu = time.process_time()
        await app.worker(concurrency=concurrency, burst=True).run()
        left = await app.queue("default").info()
        assert left.queued == left.running == left.dead == 0, left
        return {"per_second": JOBS / (marks[1] - marks[0]), "worker_cpu_us": (time.process_time() - cpu) / JOBS * 1e6}


async def round_trip() -> dict[str, float]:
    """An idle worker in this process, one job at a time: from before the enqueue to the awaited result."""
    times: list[float] = []
    async with app, app.worker(concurrency=10):
        for i in range(1_000):
            start = time.perf_counter()
            assert await (await add.enqueue(i, i)).result(timeout=10) == 2 * i
            times.append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(0.002)
    times = sorted(times[100:])
    return {"p50_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)]}


async def floor() -> dict[str, float]:
    """The limit: redis-py, XREADGROUP 100, then XACK and XDEL in one pipeline, nothing else."""
    client = redis.asyncio.Redis.from_url(os.environ["STREAMQ_URL"])
    body = b"x" * 60
    pipe = client.pipeline(transaction=False)
    for _ in range(JOBS):
        pipe.xadd("floor", {"i": new_id(), "j": body})
    await pipe.execute()
    await client.xgroup_create("floor", "w", "0")
    start, done = time.perf_counter(), 0
    while done < JOBS:
        found = await client.xreadgroup("w", "c", {"floor": ">"}, count=100)
        entries = [entry for entry, _ in found[0][1]] if isinstance(found, list) else []
        entries = entries or [entry for entry, _ in found[b"floor"][0]]
        pipe = client.pipeline(transaction=False)
        pipe.xack("floor", "w", *entries)
        pipe.xdel("floor", *entries)
        await pipe.execute()
        done += len(entries)
    took = time.perf_counter() - start
    await client.aclose()
    return {"per_second": JOBS / took}


SCENARIOS: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
    "floor": floor,
    "enqueue bulk": bulk,
    "enqueue 100 concurrent": concurrent,
    "enqueue sequential": sequential,
    "drain c=32": lambda: drain(32),
    "drain c=100": lambda: drain(100),
    "round trip": round_trip,
}


async def main(name: str) -> None:
    print(json.dumps(await SCENARIOS[name]()))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
