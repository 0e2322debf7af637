"""streamq, as its documentation shows it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.chaos import book
from streamq import Event, StreamQ

SETTINGS = "lease as said, grace 5 s, max_crashes 1,000 (3 by default): no job is given up"

app = StreamQ(
    os.environ["CHAOS_URL"], namespace="chaos", lease=float(os.environ["CHAOS_LEASE"]), grace=5.0, max_crashes=1_000
)


@app.on("worker.started")
def started(_: Event) -> None:
    book.up()


@app.task(name="work")
async def work(key: str, seconds: float) -> None:
    book.note("START", key)
    await asyncio.sleep(seconds)
    book.note("END", key)


def worker() -> list[str]:
    options = ["-c", os.environ["CHAOS_CONCURRENCY"], "-l", "warning"]
    return ["-m", "streamq", "worker", "benchmarks.chaos.peers.streamq:app", *options]


@asynccontextmanager
async def producer() -> AsyncIterator[Callable[[str, float], Awaitable[object]]]:
    async with app:
        yield work.enqueue
