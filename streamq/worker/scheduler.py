"""Cron without a leader: every worker offers each occurrence, and the first one wins."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterable
from typing import Any, Final

from streamq.client.app import Application
from streamq.client.registry import Scheduled
from streamq.worker.service import Service

logger = logging.getLogger("streamq.worker")

LONGEST: Final = 5.0  # seconds; the server's clock can be set
MOST_MISSED: Final = 1_000  # occurrences that catch_up="all" makes up for at one start
LATE_MS: Final = 60_000  # an occurrence older than this was missed, not merely late
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.:/-]")


def occurrence_id(name: str, occurrence: int) -> str:
    """The id of the job of one occurrence: the same on every worker.

    >>> occurrence_id("nightly report", 1700000000000)
    'cron-nightly_report-1700000000000'
    """
    return f"cron-{_UNFIT.sub('_', name)[:100]}-{occurrence}"


class Scheduler(Service):
    """The named schedules, or all, in a heap by their next occurrence (epoch ms of the server)."""

    name = "scheduler"

    def __init__(self, app: Application[Any], names: Iterable[str] | None = None) -> None:
        super().__init__(app.broker.connections.address)
        self._app = app
        self._broker = app.broker
        self._names = list(app.timetable if names is None else names)
        self._next: list[tuple[int, str]] = []
        self._started = False

    async def turn(self) -> float:
        """Offer what is due; seconds until the next."""
        if not self._started:
            await self._start()
            self._started = True
        now = self._broker.clock.now_ms()
        while self._next and self._next[0][0] <= now and not self.stopping.is_set():
            occurrence, name = self._next[0]
            scheduled = self._app.timetable[name]
            for due in self._due(scheduled, occurrence, now):
                await self._fire(scheduled, due)
            heapq.heapreplace(self._next, (scheduled.schedule.after(now), name))
            now = self._broker.clock.now_ms()
        return min(LONGEST, max(0.001, (self._next[0][0] - now) / 1000)) if self._next else LONGEST

    async def _start(self) -> None:
        """Begin where somebody, perhaps an earlier run, left off."""
        last: dict[str, int] = {}
        for queue, names in _by_queue(self._app, self._names).items():
            for first in range(0, len(names), 1_000):
                last |= await self._broker.last_fired(queue, names[first : first + 1_000])
        now = self._broker.clock.now_ms()
        self._next = []
        for name in self._names:
            scheduled = self._app.timetable[name]
            since = now if scheduled.catch_up == "skip" else min(last[name], now)
            self._next.append((scheduled.schedule.after(since), name))
        heapq.heapify(self._next)

    def _due(self, scheduled: Scheduled, occurrence: int, now: int) -> list[int]:
        """Which of the occurrences from `occurrence` until now are offered."""
        schedule = scheduled.schedule
        following = schedule.after(occurrence)
        if following > now and (now - occurrence <= LATE_MS or scheduled.catch_up != "skip"):
            return [occurrence]
        match scheduled.catch_up:
            case "all":
                missed = [occurrence]
                while following <= now:
                    missed.append(following)
                    following = schedule.after(following)
                    if len(missed) >= 2 * MOST_MISSED:
                        missed = missed[-MOST_MISSED:]
                        logger.warning("%s: more than %d occurrences were missed", scheduled.name, MOST_MISSED)
                return missed[-MOST_MISSED:]
            case "skip":
                newest = schedule.latest(now, max(occurrence - 1, now - LATE_MS))
                return [] if newest is None else [newest]
            case _:
                newest = schedule.latest(now, occurrence)
                return [occurrence if newest is None else newest]

    async def _fire(self, scheduled: Scheduled, occurrence: int) -> None:
        queue, job = self._app.build(scheduled.signature(), occurrence_id(scheduled.name, occurrence))
        if await self._broker.fire(queue, scheduled.name, occurrence, job):
            logger.debug("%s: fired %s", scheduled.name, job.job_id)


def schedulers(app: Application[Any]) -> list[Scheduler]:
    """One for each queue that schedules enqueue into: while the server of one is away, the others go on."""
    return [Scheduler(app, names) for names in _by_queue(app, app.timetable).values()]


def _by_queue(app: Application[Any], names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(app.build(app.timetable[name].signature())[0], []).append(name)
    return found
