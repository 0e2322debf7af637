"""The limit over redis-py: XREADGROUP 100, then XACK and XDEL in one pipeline, and nothing else."""

from __future__ import annotations

import os
from typing import Any

import redis.asyncio
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from benchmarks.marks import mark

REQUIRES: list[str] = []  # the interpreter that runs the harness: redis-py, hiredis and uvloop are streamq's
SETTINGS = "no tasks, no results, no leases: what a queue over redis-py cannot be faster than"
RESULTS = False
JOBS = 60_000

BATCH = 100
CHUNK = 500  # XADDs a pipeline


async def _prepare(client: Redis) -> None:
    try:
        await client.xgroup_create("bench", "w", "0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def worker(concurrency: int) -> list[str]:
    return ["-m", "benchmarks.contenders.raw"]


async def work(url: str) -> None:
    client = redis.asyncio.from_url(url, protocol=2, socket_timeout=None)
    await _prepare(client)
    while True:
        found: Any = await client.xreadgroup("w", "c", {"bench": ">"}, count=BATCH, block=0)
        entries = []
        for entry, fields in found[0][1]:
            mark(int(fields[b"i"]))
            entries.append(entry)
        pipe = client.pipeline(transaction=False)
        pipe.xack("bench", "w", *entries)
        pipe.xdel("bench", *entries)
        await pipe.execute()


class Producer:
    enqueue_naps = enqueue_in = result = None

    def __init__(self, client: Redis) -> None:
        self.client = client

    async def enqueue(self, i: int, y: int) -> None:
        await self.client.xadd("bench", {"i": i, "y": y})

    async def enqueue_many(self, count: int) -> None:
        for start in range(0, count, CHUNK):
            pipe = self.client.pipeline(transaction=False)
            for i in range(start, min(start + CHUNK, count)):
                pipe.xadd("bench", {"i": i, "y": 1})
            await pipe.execute()

    async def left(self) -> int:
        return int(await self.client.xlen("bench"))

    async def close(self) -> None:
        await self.client.aclose()


async def open_producer(url: str) -> Producer:
    pool = BlockingConnectionPool.from_url(url, protocol=2, max_connections=100)
    client = Redis(connection_pool=pool)
    await _prepare(client)
    return Producer(client)


if __name__ == "__main__":
    uvloop.run(work(os.environ["BENCH_URL"]))
