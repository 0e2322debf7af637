"""Celery on Redis, with results in Redis.

No-ops cost its threads pool less than gevent and prefork. Solo spends a fifth less yet, but runs one job at a time:
20 jobs a second that wait 50 ms.
"""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.result import AsyncResult
from redis import Redis

from benchmarks.marks import mark

REQUIRES: list[str] = ["celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"]
SETTINGS = (
    "threads pool, acks_late, prefetch multiplier 64 (its optimizing guide), one result backend for all threads, "
    "no gossip, mingle and heartbeat; bulk in kombu's Producer.batch()"
)
RESULTS = True
JOBS = 3_000

app = Celery("bench", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=64, result_backend_thread_safe=True)
app.conf.redis_max_connections = 1_000  # 100 by default, and each thread takes one to store a result


@app.task(name="add")
def add(i: int, y: int) -> int:
    mark(i)
    return i + y


@app.task(name="nap")
def nap(i: int) -> None:
    mark(i)
    time.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    options = ["--pool", "threads", "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["-m", "celery", "--quiet", "-A", "benchmarks.contenders.celery", "worker", *options, *quiet]


class Producer:
    """A synchronous library: 100 threads enqueue no faster than one."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def enqueue(self, i: int, y: int) -> AsyncResult:
        return add.delay(i, y)

    async def enqueue_many(self, count: int) -> None:
        with app.producer_pool.acquire(block=True) as producer, producer.batch():
            for i in range(count):
                add.apply_async((i, 1), producer=producer)

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            nap.delay(i)

    async def enqueue_in(self, delay: float, i: int) -> None:
        add.apply_async((i, 1), countdown=delay)

    async def result(self, job: AsyncResult) -> int:
        return job.get(timeout=60)

    async def left(self) -> int:
        """Delayed and prefetched messages are unacknowledged ones, and stay so until their results are stored."""
        with self.redis.pipeline() as pipe:
            return sum(pipe.llen(app.conf.task_default_queue).hlen("unacked").execute())

    async def close(self) -> None:
        self.redis.close()
        app.close()


async def open_producer(url: str) -> Producer:
    return Producer(Redis.from_url(url))
