"""Closing the waiters must end, whatever moment it comes at."""

from __future__ import annotations

import asyncio
import contextlib

from streamq.broker.broker import Broker
from streamq.broker.results import Results
from streamq.core.options import AppOptions
from streamq.errors import StreamQError


async def test_closing_at_any_moment_ends(url: str, namespace: str) -> None:
    broker = Broker(url, AppOptions(namespace=namespace))
    await broker.open()
    try:
        for steps in range(300):
            results = Results(broker)
            waiting = asyncio.ensure_future(results.wait("default", "nobody", 5, known=False))
            for _ in range(steps % 60):
                await asyncio.sleep(0)
            async with asyncio.timeout(4):  # a lost cancellation would be noticed at the next read, 5 seconds later
                await results.close()
            waiting.cancel()
            with contextlib.suppress(StreamQError, asyncio.CancelledError):
                await waiting
    finally:
        await broker.close()
