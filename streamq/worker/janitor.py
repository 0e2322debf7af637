"""Removes what dead workers left behind once their jobs were taken over."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from streamq.broker.broker import Broker
from streamq.worker.service import Service

logger = logging.getLogger("streamq.worker")


class Janitor(Service):
    """Every ten leases or so: consumers with nothing in hand, entries of workers that are gone."""

    name = "janitor"

    def __init__(self, broker: Broker, queues: Sequence[str], lease: float) -> None:
        super().__init__(broker.connections.address)
        self._broker = broker
        self._queues = queues
        self._lease = lease
        self._first = True

    async def turn(self) -> float:
        """Tidy every queue, but not at the start: a whole fleet would do it at once."""
        if self._first:
            self._first = False
        else:
            for queue in self._queues:
                gone = await self._broker.tidy(queue)
                if gone:
                    logger.info("%s: removed %d dead workers", queue, gone)
        return self._lease * 10 * (0.8 + 0.4 * random.random())
