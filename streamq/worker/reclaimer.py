"""The sweep: takes over what dead workers held, and what living ones gave back."""

from __future__ import annotations

import random
import time
from typing import Final

from streamq.broker.broker import Broker
from streamq.broker.line import Line
from streamq.worker.lane import Lane
from streamq.worker.service import Service
from streamq.worker.slots import Slots

MOST: Final = 100  # entries a sweep
# Leases between two looks everywhere, and up to a tenth of one more. Above 1, what is delivered right after one look
# would be out of its lease before the next, and found too late.
EVERYWHERE: Final = 0.9


class Reclaimer(Service):
    """One queue's. Where nothing is pending, no lease can run out for a whole lease.

    So it looks everywhere once a lease, and at once when a job was given back; in between, every lease/8 with jitter,
    only at the priorities where something is pending. If there are none, Redis is not asked.

    While Redis is away nobody can renew, and its downtime counts as idle time: a sweep right after it came back
    would take every running job from its worker. So for one lease after each new connection it takes only what was
    given back.
    """

    def __init__(self, broker: Broker, lane: Lane, consumer: str, slots: Slots) -> None:
        super().__init__(broker.connections.address)
        self.name = f"reclaimer of {lane.queue}"
        self._broker = broker
        self._lane = lane
        self._consumer = consumer
        self._slots = slots
        self._lease = broker.options.lease
        self._connected: tuple[Line, int] | None = None
        self._quiet_until = 0.0
        self._pending = False  # at a priority that was looked at
        self._everywhere_at = 0.0
        lane.on_suspect = lane.on_resume = self.wake

    def wake(self) -> None:
        """Look everywhere at once: a job was given back."""
        self._everywhere_at = 0.0
        super().wake()

    async def turn(self) -> float:
        """Sweep as many as there are free slots; at once again if there may be more."""
        now, pause = time.monotonic(), self._lease / 8 * (0.8 + 0.4 * random.random())
        everywhere = now >= self._everywhere_at
        if not (everywhere or self._pending):
            self._notice(now)
            return self._until(pause)
        quiet = await self._quiet()
        slots, share = self._slots, self._slots.share(self._lane.queue)
        want = slots.reserve(share, MOST, sweep=True)
        if not want:
            if not self._everywhere_at:
                self._lane.on_room = self.wake  # there is something to take
            return pause
        if everywhere:  # before it is sent: somebody may ring meanwhile
            self._everywhere_at = now + self._lease * (EVERYWHERE + 0.1 * random.random())
        suspects = 0 if slots.suspects else 1
        slots.suspects += suspects  # the sweeps of two queues must not bring one each
        asked, got = time.monotonic(), 0
        try:
            deliveries, self._pending = await self._broker.reclaim(
                self._lane.queue,
                self._consumer,
                lease_ms=round(self._lease * 1000),
                want=want,
                suspects=suspects,
                quiet=quiet > 0,
                everywhere=everywhere,
            )
            got = len(deliveries)
        except Exception:
            self._everywhere_at = 0.0
            raise
        finally:
            slots.suspects -= suspects
            slots.settle(share, want, got)
            self._lane.freed()
        self._lane.receive(deliveries, asked)
        if got == want:  # there may be more
            self._everywhere_at = 0.0
            return 0
        return self._until(min(quiet, pause) if quiet > 0 else pause)

    def _until(self, pause: float) -> float:
        return max(0.0, min(pause, self._everywhere_at - time.monotonic()))

    async def _quiet(self) -> float:
        """Seconds for which the server's idle times cannot be believed yet."""
        asked = time.monotonic()
        await self._line().call("TIME")
        now = time.monotonic()
        if now - asked > self._lease / 4:  # it was stopped, or is overloaded: others could not renew either
            self._quiet_until = now + self._lease
        self._notice(now)
        return self._quiet_until - now

    def _line(self) -> Line:
        return self._broker.line("commands", self._broker.bell(self._lane.queue))

    def _notice(self, now: float) -> None:
        """Whoever made the connection anew, or to another server, its quiet time begins."""
        line = self._line()
        if (line, line.connected) != self._connected:
            first, self._connected = self._connected is None, (line, line.connected)
            up = self._broker.uptime if first else 0.0
            self._quiet_until = max(self._quiet_until, now + max(0.0, self._lease - up))
