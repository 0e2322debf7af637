"""taskiq over a Redis list: ListQueueBroker, which acknowledges nothing."""

from __future__ import annotations

import asyncio
import os

from redis.asyncio import Redis
from taskiq import AsyncTaskiqTask
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.marks import mark

REQUIRES: list[str] = [
    "taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "orjson==3.13.0", "uvloop==0.23.0",
]  # fmt: skip
SETTINGS = (
    "--workers 1 (2 by default), ORJSONSerializer (its guide to message formats), result_ex_time (its README), "
    "results polled every 1 ms (0.2 s by default); delays would need a second process, its scheduler"
)
RESULTS = True
JOBS = 6_000

POLL = 0.001  # seconds

results = RedisAsyncResultBackend(os.environ["BENCH_URL"], result_ex_time=1_000)
broker = ListQueueBroker(os.environ["BENCH_URL"]).with_result_backend(results).with_serializer(ORJSONSerializer())


@broker.task(task_name="add")
async def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@broker.task(task_name="nap")
async def nap(i: int) -> None:
    mark(i)
    await asyncio.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    options = ["--workers", "1", "--max-async-tasks", str(concurrency), "--log-level", "WARNING"]
    return ["-m", "taskiq", "worker", "benchmarks.contenders.taskiq_list:broker", *options]


class Producer:
    enqueue_many = None  # it has no bulk call
    enqueue_in = None  # its workers know no delays: `taskiq scheduler`, a second process, sends what is due

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def enqueue(self, i: int, y: int) -> AsyncTaskiqTask[int]:
        return await add.kiq(i, y)

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            await nap.kiq(i)

    async def result(self, task: AsyncTaskiqTask[int]) -> int:
        return (await task.wait_result(check_interval=POLL, timeout=60)).return_value

    async def left(self) -> int:
        """A popped job is nowhere in Redis until its result is: LPUSHs since the server started, minus results."""
        stats = await self.redis.info("commandstats")
        pushed, stored = (stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lpush", "set"))
        return pushed - stored

    async def close(self) -> None:
        await self.redis.aclose()
        await broker.shutdown()


async def open_producer(url: str) -> Producer:
    await broker.startup()  # to BENCH_URL, which is the same
    return Producer(Redis.from_url(url))
