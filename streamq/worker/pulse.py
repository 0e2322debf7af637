"""Whether this process's event loop keeps up, and whether Redis answers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from streamq.broker.broker import Broker

TICK: Final = 0.25  # seconds
WINDOW: Final = 60  # ticks: 15 s, which is how often metrics are usually fetched
PING_EVERY: Final = 1.0  # seconds
PING_WITHIN: Final = 2.0


class Pulse:
    """Sleeps a little again and again: how much too late it wakes is how long others held the loop."""

    name = "pulse"

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=WINDOW)

    @property
    def lag(self) -> float:
        """Seconds, the worst of the last 15."""
        return max(self._late, default=0.0)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self._late.append(max(0.0, time.monotonic() - due))


class Reach:
    """Asks Redis once a second, on a connection of its own: a late reply must not close the worker's.

    It begins when `begin` is set, which is when the broker is open.
    """

    name = "reach"

    def __init__(self, broker: Broker, begin: asyncio.Event) -> None:
        self.connected = True  # it has just been asked when this begins
        self._broker = broker
        self._begin = begin

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._begin.wait()
        try:
            while True:
                self.connected = await self._all_answer()
                await asyncio.sleep(PING_EVERY)
        finally:
            await self._broker.hang_up(self.name)

    async def _all_answer(self) -> bool:
        try:
            for node in self._broker.servers():
                await self._broker.line_to(self.name, node).call("PING", timeout=PING_WITHIN)
        except Exception:  # noqa: BLE001 - whatever it was, Redis did not answer; those who need it say so
            return False
        return True
