"""taskiq over a Redis stream: RedisStreamBroker, which acknowledges jobs when their results are stored."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from taskiq import TaskiqEvents, TaskiqState
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.chaos import book

SETTINGS = (
    "RedisStreamBroker with idle_timeout as the lease (10 min by default; it is not renewed, so it must exceed the "
    "longest job), unacknowledged_lock_timeout as the lease (none by default: a killed worker may hold it for ever), "
    "xread_count like --max-async-tasks (100 by default), so that no message waits long in a worker; acknowledged when "
    "the result is saved (its default); --workers 1, the kill strikes the manager and its child"
)

LEASE = float(os.environ["CHAOS_LEASE"])
results = RedisAsyncResultBackend(os.environ["CHAOS_URL"], result_ex_time=1_000)
broker = (
    RedisStreamBroker(
        os.environ["CHAOS_URL"],
        idle_timeout=round(LEASE * 1000),
        unacknowledged_lock_timeout=LEASE,
        xread_count=int(os.environ["CHAOS_CONCURRENCY"]),
    )
    .with_result_backend(results)
    .with_serializer(ORJSONSerializer())
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def started(_: TaskiqState) -> None:
    book.up()


@broker.task(task_name="work")
async def work(key: str, seconds: float) -> None:
    book.note("START", key)
    await asyncio.sleep(seconds)
    book.note("END", key)


def worker() -> list[str]:
    options = ["--workers", "1", "--max-async-tasks", os.environ["CHAOS_CONCURRENCY"], "--log-level", "WARNING"]
    return ["-m", "taskiq", "worker", "benchmarks.chaos.peers.taskiq_streams:broker", *options]


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, float], Awaitable[object]]]:
    await broker.startup()
    try:
        yield work.kiq
    finally:
        await broker.shutdown()
