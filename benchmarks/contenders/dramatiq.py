"""Dramatiq on Redis, with its results middleware."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.marks import mark

REQUIRES: list[str] = ["dramatiq[redis]==2.2.1", "redis==8.1.0", "hiredis==3.5.0"]
SETTINGS = "one worker process with as many threads as the concurrency, results middleware"
RESULTS = True
JOBS = 6_000

client = Redis.from_url(os.environ["BENCH_URL"], max_connections=1_000)  # 100 by default, and each thread takes one
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@dramatiq.actor(store_results=True)
def nap(i: int) -> None:
    mark(i)
    time.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    options = ["--processes", "1", "--threads", str(concurrency), "--skip-logging"]  # Python's own logs at WARNING
    return ["-m", "dramatiq", "benchmarks.contenders.dramatiq", *options]


class Producer:
    """A synchronous library: 100 threads enqueue no faster than one."""

    enqueue_many = None  # it has no bulk call: `group.run()` sends one message after the other

    async def enqueue(self, i: int, y: int) -> dramatiq.Message[int]:
        return add.send(i, y)

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            nap.send(i)

    async def enqueue_in(self, delay: float, i: int) -> None:
        add.send_with_options(args=(i, 1), delay=round(delay * 1e3))

    async def result(self, message: dramatiq.Message[int]) -> int:
        return message.get_result(block=True, timeout=60_000)

    async def left(self) -> int:
        """Messages not acknowledged yet, which they are when their results are stored; and delayed ones."""
        with client.pipeline() as pipe:
            return sum(pipe.hlen("dramatiq:default.msgs").hlen("dramatiq:default.DQ.msgs").execute())

    async def close(self) -> None:
        broker.close()
        client.close()


async def open_producer(url: str) -> Producer:
    return Producer()  # for BENCH_URL, which is the same
