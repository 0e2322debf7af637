"""The one retry loop around Redis. Only idempotent calls may pass through it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from streamq.broker.diagnosis import is_transient

T = TypeVar("T")

FIRST: Final = 0.05  # seconds
LONGEST: Final = 5.0


def backoff() -> Iterator[float]:
    """Seconds to wait before each further try: doubling from 50 ms to 5 s, each with half of it by chance."""
    wait = FIRST
    while True:
        yield wait * (0.5 + random.random() / 2)
        wait = min(wait * 2, LONGEST)


async def persist(
    call: Callable[[], Awaitable[T]],
    timeout: float | None,
    *,
    on_failure: Callable[[BaseException, float], None] | None = None,
) -> T:
    """Call until it succeeds, or fails with what will not pass, or `timeout` seconds are over (None: for ever).

    Each further try is announced to `on_failure(error, seconds to wait)`. The last error is raised as it is.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    for wait in backoff():
        try:
            return await call()
        except Exception as error:
            late = deadline is not None and loop.time() + wait > deadline
            if late or not is_transient(error):
                raise
            if on_failure is not None:
                on_failure(error, wait)
        await asyncio.sleep(wait)
    raise AssertionError("the backoff has no end")
