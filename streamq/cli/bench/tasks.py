"""The application that is measured, the same in the process that enqueues and in its worker.

It is at STREAMQ_URL and in STREAMQ_NAMESPACE, which `streamq bench` sets.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from streamq.worker.app import StreamQ

READY: Final = b"+"

_first: list[tuple[float, float]] = []  # when the first job started, and the CPU time until then


@asynccontextmanager
async def _gate() -> AsyncGenerator[None]:
    """A worker says on stdout that it is ready, and waits on stdin until it may begin. It dies with its parent."""
    go, loop = asyncio.Event(), asyncio.get_running_loop()

    def listen() -> None:
        if os.read(0, 1):
            loop.call_soon_threadsafe(go.set)
            os.read(0, 1)
        os._exit(1)  # the other end of the pipe is closed, however the parent ended

    threading.Thread(target=listen, name="bench-parent", daemon=True).start()
    os.write(1, READY)
    await go.wait()
    yield


app: StreamQ[None] = StreamQ(lifespan=_gate, timeout="2s", result_ttl="10m")


@app.task(name="bench.add")
async def add(x: int, y: int) -> int:
    """As little as a task can do."""
    if not _first:
        _first.append((time.perf_counter(), time.process_time()))
    return x + y


@app.task(name="bench.usage")
async def usage() -> tuple[float, float, float]:
    """When the first job started (perf_counter, the same in all processes), CPU seconds until then, and until now."""
    return (*_first[0], time.process_time())
