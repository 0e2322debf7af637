"""Waiting for what a test needs to have happened, and a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamq import StreamQ
from streamq.core.clock import ServerClock
from tests.conftest import PROGRAMS

# For what is expensive and does not depend on the kind of server.
one_server = pytest.mark.parametrize("server", [next(iter(PROGRAMS))], indirect=True, scope="session")


async def until(check: Callable[[], Awaitable[bool] | bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not (found if isinstance(found := check(), bool) else await found):
            await asyncio.sleep(0.002)


class Time:
    """Epoch ms as the servers and applications of one test see it."""

    def __init__(self, ms: int = 1_800_000_000_000) -> None:
        self.ms = ms

    def rules(self, app: StreamQ[Any]) -> None:
        app.broker.now = lambda: self.ms
        app.broker.clock = ServerClock(lambda: self.ms / 1000)
