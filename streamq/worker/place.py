"""One of a supervisor's N: keeps a worker process running there, and hands over to a successor without a gap."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from streamq.worker.child import Child
from streamq.worker.rest import rest

FIRST_PAUSE: Final = 0.25  # seconds before a process that ended is replaced
LONGEST_PAUSE: Final = 30.0
HEALTHY: Final = 60.0  # seconds after which earlier ends are forgotten

logger = logging.getLogger("streamq.supervisor")


@dataclass
class House:
    """What all places share. `start` gives a new process, `turn` lets one successor start at a time."""

    start: Callable[[int], Awaitable[Child]]
    stopping: asyncio.Event
    margin: float
    burst: bool
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    restarts: Counter[str] = field(default_factory=Counter[str])


class Place:
    """While a successor is starting, `child` goes on. `keep` lives as long as the place does."""

    def __init__(self, number: int, house: House) -> None:
        self.number: Final = number
        self.child: Child | None = None
        self.successor: Child | None = None
        self._house = house
        self._failures = 0
        self._lock = asyncio.Lock()  # held while somebody is started here
        self._renewal: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether somebody takes jobs here."""
        return self.child is not None and self.child.state == "ready" and not self.child.silent

    async def keep(self) -> int:
        """Replace what ends, until the supervisor stops or a burst is over; the exit code of the latter."""
        stopping = self._house.stopping
        while not stopping.is_set():
            async with self._lock:
                child = self.child = self.child or await self._started()
            if child is None:
                await self._pause(f"worker process {self.number} did not start")
                continue
            code = await child.ended()
            async with self._lock:  # its successor may be on its way
                if self.child is not child:
                    continue
                self.child = None
            if self._house.burst and code >= 0:
                return code
            if not stopping.is_set() and not child.told:
                if child.was_ready and time.monotonic() - child.started_at >= HEALTHY:
                    self._failures = 0
                self._house.restarts["ended"] += 1
                await self._pause(f"{child} ended by itself ({reading(code)})")
        return 0

    async def _started(self) -> Child | None:
        try:
            return await self._house.start(self.number)
        except OSError as error:  # of memory, processes or files there are too few now: that may pass
            logger.error("worker process %d cannot be started: %s", self.number, error)
            return None

    async def _pause(self, why: str) -> None:
        self._failures += 1
        pause = pause_after(self._failures)
        logger.error("%s; another one starts in %.1f s", why, pause)
        await rest(pause, self._house.stopping)

    async def hand_over(self, why: str) -> bool:
        """Start a successor; once it is ready, let the process drain, and wait for its end.

        False if the successor ended before it was ready: then the process goes on.
        """
        house = self._house
        async with house.turn, self._lock:
            old = self.child
            if old is None or old.state == "draining":
                return True  # another one will start anyway
            self.successor = new = await self._started()
            if new is None:
                return False
            try:
                ready = await new.became_ready()
            finally:
                self.successor = None
            if not ready:
                if not house.stopping.is_set():
                    end = reading(await new.ended())
                    logger.error("%s ended before it was ready (%s): %s goes on in its place", new, end, old)
                return False
            self.child = new
        house.restarts[why] += 1
        logger.info("%s takes over from %s (%s)", new, old, why)
        old.drain(house.margin)
        await old.ended()
        return True

    def renew(self, why: str) -> None:
        """Hand over when possible, trying again until it is. Calling it again meanwhile does nothing."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(why), name=f"streamq renewal {self.number}")

    async def _renew(self, why: str) -> None:
        failures, stopping = 0, self._house.stopping
        while not stopping.is_set() and not await self.hand_over(why):
            failures += 1
            await rest(pause_after(failures), stopping)


def pause_after(failures: int) -> float:
    """Seconds before the next try: doubling from 0.25 to 30, half of it by chance.

    >>> 0.125 <= pause_after(1) <= 0.25 and 15 <= pause_after(50) <= 30
    True
    """
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return longest * (0.5 + random.random() / 2)


def reading(code: int) -> str:
    """How a process ended.

    >>> reading(1), reading(-9)
    ('exit code 1', 'SIGKILL')
    """
    if code >= 0:
        return f"exit code {code}"
    names = {each.value: each.name for each in signal.Signals}
    return names.get(-code, f"signal {-code}")
