"""The shape of a background service: `run()` loops, `turn()` does one round."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from streamq.broker.connect import Address
from streamq.worker.patience import GaveUp, persist
from streamq.worker.rest import rest


class Service(ABC):
    """A loop around `turn`, which says how many seconds the next one may wait. `wake` shortens that.

    `stop` lets the turn that is under way end: what it took from Redis is in somebody's hands.
    """

    name = "service"

    def __init__(self, where: Address | str) -> None:
        self.where = where
        self.stopping = asyncio.Event()
        self._bell = asyncio.Event()

    async def run(self) -> None:
        """Loop until `stop`. Redis being away is waited out; any other error is raised."""
        try:
            while not self.stopping.is_set():
                self._bell.clear()
                pause = await persist(self.turn, what=self.name, where=self.where, stopping=self.stopping)
                if pause > 0 and not self.stopping.is_set():
                    await rest(pause, self._bell)
        except GaveUp:
            pass

    @abstractmethod
    async def turn(self) -> float:
        """One round; seconds until the next."""

    def wake(self) -> None:
        """Take the next turn at once."""
        self._bell.set()

    def stop(self) -> None:
        """Take no further turn."""
        self.stopping.set()
        self._bell.set()
