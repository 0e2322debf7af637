"""`python -m benchmarks.chaos.run NAME worker|produce`, in the environment of that queue."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from itertools import count
from typing import Any

from benchmarks.chaos import book

SHORT = (0.005, 0.05)  # seconds that a job takes
TICK = 0.02


async def produce(peer: Any) -> None:
    """Enqueue at the rate that stands on the last line of stdin, until that ends."""
    rate = 0.0
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    dice, numbers, sending = random.Random(f"load {os.environ['CHAOS_SEED']}"), count(), set[asyncio.Task[None]]()
    async with peer.producer() as enqueue:
        book.up()
        heard = asyncio.create_task(lines.readline())
        due, before = 0.0, loop.time()
        while True:
            await asyncio.sleep(TICK)
            if heard.done():
                if not (line := heard.result()):
                    break
                rate, heard = float(line), asyncio.create_task(lines.readline())
            due, before = due + (loop.time() - before) * rate, loop.time()
            for _ in range(int(due)):
                task = asyncio.create_task(_enqueue(enqueue, f"job-{next(numbers)}", dice.uniform(*SHORT)))
                sending.add(task)
                task.add_done_callback(sending.discard)
            due %= 1.0
        await asyncio.gather(*sending)


async def _enqueue(enqueue: Callable[[str, float], Awaitable[object]], key: str, seconds: float) -> None:
    book.note("INTENT", key)
    await enqueue(key, seconds)
    book.note("ACKED", key)


def main() -> None:
    """Become a worker, or the producer."""
    name, verb = sys.argv[1:]
    peer = import_module(f"benchmarks.chaos.peers.{name}")
    if verb == "worker":
        os.execv(sys.executable, [sys.executable, *peer.worker()])
    asyncio.run(produce(peer))


if __name__ == "__main__":
    main()
