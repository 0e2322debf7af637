"""streaQ, as its documentation shows it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from streaq import Worker

from benchmarks.chaos import book

SETTINGS = (
    "idle_timeout as the lease (60 s by default; renewed while a task runs), grace_period 5 s (0 by default), "
    "max_tries None (3 by default): no job is given up"
)


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    book.up()
    yield


app = Worker(
    redis_url=os.environ["CHAOS_URL"],
    concurrency=int(os.environ["CHAOS_CONCURRENCY"]),
    lifespan=lifespan,
    idle_timeout=float(os.environ["CHAOS_LEASE"]),
    grace_period=5,
    anyio_kwargs={"use_uvloop": True},
)


@app.task(max_tries=None, silent=True)
async def work(key: str, seconds: float) -> None:
    book.note("START", key)
    await asyncio.sleep(seconds)
    book.note("END", key)


def worker() -> list[str]:
    return ["-m", "benchmarks.chaos.peers.streaq"]  # not `streaq run`: it always logs at INFO


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, float], Awaitable[object]]]:
    async def enqueue(key: str, seconds: float) -> None:
        await work.enqueue(key, seconds)

    async with app:
        yield enqueue


if __name__ == "__main__":
    app.run_sync()
