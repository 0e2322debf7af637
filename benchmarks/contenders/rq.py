"""RQ with its SimpleWorker, which runs jobs without a fork, one at a time."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from redis import Redis
from rq import Queue
from rq.job import Job

from benchmarks.marks import mark

REQUIRES: list[str] = ["rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"]
SETTINGS = "SimpleWorker (six times as fast as the default one, says its benchmark page) with its scheduler"
RESULTS = True
JOBS = 1_000

NAME = "bench"
CHUNK = 1_000  # jobs a bulk call, which is one transaction


def add(i: int, y: int) -> int:
    mark(i)
    return i + y


def nap(i: int) -> None:
    mark(i)
    time.sleep(0.05)


def worker(concurrency: int) -> list[str]:
    """A worker has no concurrency: one job at a time."""
    options = ["--url", os.environ["BENCH_URL"], "--worker-class", "rq.SimpleWorker", "--with-scheduler", "--quiet"]
    return ["-m", "rq.cli", "worker", *options, NAME]


class Producer:
    """A synchronous library: 100 threads enqueue no faster than one."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.queue = Queue(NAME, connection=redis)

    async def enqueue(self, i: int, y: int) -> Job:
        return self.queue.enqueue(add, i, y)

    async def enqueue_many(self, count: int) -> None:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            self.queue.enqueue_many([Queue.prepare_data(add, (i, 1)) for i in numbers])

    async def enqueue_naps(self, count: int) -> None:
        for i in range(count):
            self.queue.enqueue(nap, i)

    async def enqueue_in(self, delay: float, i: int) -> None:
        """It rounds down to a whole second and looks once a second: jobs start up to a second early or late."""
        self.queue.enqueue_in(timedelta(seconds=delay), add, i, 1)

    async def result(self, job: Job) -> int:
        found = job.latest_result(timeout=60)
        if found is None:
            raise TimeoutError(f"no result of job {job.id}")
        return found.return_value

    async def left(self) -> int:
        """Jobs queued, taken, started and scheduled: a job is in one or two of these until its result is stored."""
        queue = self.queue
        with self.redis.pipeline() as pipe:
            pipe.llen(queue.key).llen(queue.intermediate_queue_key)
            pipe.zcard(queue.started_job_registry.key).zcard(queue.scheduled_job_registry.key)
            return sum(pipe.execute())

    async def close(self) -> None:
        self.redis.close()


async def open_producer(url: str) -> Producer:
    return Producer(Redis.from_url(url))
