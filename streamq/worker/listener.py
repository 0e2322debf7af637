"""Waits for the next job of an empty queue, so that nobody has to ask again and again."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from streamq.broker.broker import Broker
from streamq.worker.lane import Lane
from streamq.worker.rest import rest
from streamq.worker.service import Service
from streamq.worker.slots import Slots

BLOCK_MS: Final = 5_000  # never 0: a half-open connection would be waited on for hours
LOOK_AGAIN: Final = 5.0  # seconds; that a paused queue was resumed may go unheard


class Listener(Service):
    """One queue's. It blocks on a connection of its own, only while a slot is free and the queue was found empty."""

    def __init__(self, broker: Broker, lane: Lane, consumer: str, slots: Slots) -> None:
        super().__init__(broker.connections.address)
        self.name = f"listener of {lane.queue}"
        self._broker = broker
        self._lane = lane
        self._consumer = consumer
        self._purpose = f"listen {consumer} {lane.queue}"  # two workers of one application must not share it
        self._slots = slots
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Loop until stopped."""
        self._task = asyncio.current_task()
        try:
            await super().run()
        finally:
            await self._broker.hang_up(self._purpose)

    async def turn(self) -> float:
        """Wait until there is room, then for a job; what comes is passed on, and the lane looks for more."""
        if not self._lane.room.is_set() and not await rest(LOOK_AGAIN, self._lane.room):
            if self._lane.paused:
                self._lane.prompt()
            return 0
        if self.stopping.is_set():
            return 0
        if not self._slots.idle:
            self._lane.room.clear()
            return 0
        self._slots.listening += 1
        asked = time.monotonic()
        try:
            deliveries = await self._broker.block(self._purpose, self._lane.queue, self._consumer, BLOCK_MS)
        except Exception as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._broker.prepare(self._lane.queue)  # the server was flushed
            return 0
        finally:
            self._slots.listening -= 1
        self._lane.hear(deliveries, asked)
        return 0

    def stop(self) -> None:
        """Read no further. What a read that was given up still brings is given back when the worker leaves."""
        super().stop()
        if self._task is not None:
            self._task.cancel()
