"""Removes what dead workers left behind once their jobs were taken over."""

from __future__ import annotations

import logging
import random

from streamq.broker.broker import Broker
from streamq.worker.service import Service

logger = logging.getLogger("streamq.worker")


class Janitor(Service):
    """One queue's, every ten leases or so: consumers with nothing in hand, entries of workers that are gone."""

    def __init__(self, broker: Broker, queue: str) -> None:
        super().__init__(broker.connections.address)
        self.name = f"janitor of {queue}"
        self._broker = broker
        self._queue = queue
        self._lease = broker.options.lease
        self._first = True

    async def turn(self) -> float:
        """Tidy, but not at the start: a whole fleet would do it at once."""
        if self._first:
            self._first = False
        elif gone := await self._broker.tidy(self._queue):
            logger.info("%s: removed %d dead workers", self._queue, gone)
        return self._lease * 10 * (0.8 + 0.4 * random.random())
