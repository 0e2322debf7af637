"""Ends a worker that was asked to empty its queues and no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from streamq.broker.broker import Broker
from streamq.worker.lane import Lane
from streamq.worker.service import Service
from streamq.worker.slots import Slots

EVERY: Final = 0.02  # seconds
logger = logging.getLogger("streamq.worker")


class Burst(Service):
    """Looks whether anything is left: on a queue, running here, or due. What waits in a paused queue is left there."""

    name = "burst"

    def __init__(self, broker: Broker, lanes: Sequence[Lane], slots: Slots, stop: Callable[[], None]) -> None:
        super().__init__(broker.connections.address)
        self._broker = broker
        self._lanes = lanes
        self._slots = slots
        self._stop = stop
        self._confirmed = False

    async def turn(self) -> float:
        """Stop the worker once two looks in a row found nothing."""
        if not self._slots.empty or not all(lane.calm for lane in self._lanes):
            self._confirmed = False
        elif self._confirmed:
            for lane in self._lanes:
                if lane.paused:
                    logger.warning("queue %s is paused: this worker ends and leaves its jobs there", lane.queue)
            self._stop()
        else:
            self._confirmed = True
            for lane in self._lanes:
                moved, _ = await self._broker.promote(lane.queue)
                self._confirmed = self._confirmed and not moved
                lane.prompt()
        return EVERY
