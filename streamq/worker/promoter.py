"""Moves delayed jobs onto the stream when they are due."""

from __future__ import annotations

from typing import Final

from streamq.broker.broker import Broker
from streamq.worker.service import Service

LONGEST: Final = 10.0  # seconds; the bell can be missed, the clock of the server can be set


class Promoter(Service):
    """One queue's. It sleeps until the next due time; an earlier one rings the bell."""

    def __init__(self, broker: Broker, queue: str) -> None:
        super().__init__(broker.connections.address)
        self.name = f"promoter of {queue}"
        self._broker = broker
        self._queue = queue

    async def turn(self) -> float:
        """Move what is due, a bounded number; at once again if there was more."""
        _, next_due = await self._broker.promote(self._queue)
        return LONGEST if next_due is None else min(LONGEST, next_due / 1000)
