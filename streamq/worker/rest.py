"""Sleeping until something happens. A module of its own: a supervisor imports nothing that speaks to Redis."""

from __future__ import annotations

import asyncio


async def rest(seconds: float, until: asyncio.Event) -> bool:
    """Wait for the event, `seconds` at most. True if it is set."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        return until.is_set()
    return True
