"""Schedules as their owner asks about them: when they fired, when they will, and holding one back."""

from __future__ import annotations

import builtins
import heapq
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from streamq.client.call import unknown_option
from streamq.client.dispatch import Dispatch
from streamq.client.handle import Job
from streamq.client.info import date
from streamq.client.link import Link
from streamq.client.registry import Scheduled
from streamq.core.cron import Cron, occurrences

SHOWN: Final = 3  # of the next occurrences of a schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """One schedule at one moment. Dates are aware and UTC.

    `what` is its cron expression or interval, `tz` its time zone (an interval has none), `last` the occurrence that
    was enqueued last (None: none yet, or none since its times were changed), `next` the next three (none while it is
    paused), `paused` since when it is paused.
    """

    name: str
    task: str
    what: str
    tz: str
    queue: str
    last: datetime | None
    next: tuple[datetime, ...]
    paused: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One moment at which a schedule will enqueue a job."""

    at: datetime
    name: str
    task: str
    queue: str


class Schedules:
    """The schedules of the application: they stand in its code, what became of them in Redis.

    A schedule that is paused enqueues nothing, whoever runs it, until it is resumed; what fell due meanwhile is not
    made up for. A name that does not exist raises `ConfigurationError`, with the nearest one.

        await app.schedules().pause("nightly")
    """

    def __init__(self, link: Link, dispatch: Dispatch, timetable: Mapping[str, Scheduled]) -> None:
        self._link = link
        self._dispatch = dispatch
        self._timetable = timetable

    async def list(self) -> list[ScheduleInfo]:
        """All of them, in the order in which the code names them."""
        broker = await self._link.open()
        by_queue: dict[str, builtins.list[str]] = {}
        for name, scheduled in self._timetable.items():
            by_queue.setdefault(self._queue(scheduled), []).append(name)
        told: dict[str, tuple[int, int]] = {}
        for queue, names in by_queue.items():
            told.update(zip(names, await broker.schedules(queue, names), strict=True))
        now = broker.now_ms()
        return [self._info(scheduled, *told[name], now) for name, scheduled in self._timetable.items()]

    async def show(self, name: str) -> ScheduleInfo:
        """One of them."""
        scheduled = self._named(name)
        broker = await self._link.open()
        ((last, paused),) = await broker.schedules(self._queue(scheduled), [name])
        return self._info(scheduled, last, paused, broker.now_ms())

    async def upcoming(self, name: str | None = None, limit: int = 5) -> builtins.list[Occurrence]:
        """The next `limit` occurrences of one of them, or of all; those that are paused have none."""
        found = await self.list() if name is None else [await self.show(name)]
        now = (await self._link.open()).now_ms()
        merged = heapq.merge(*(_next(self._timetable[each.name], now, limit) for each in found if each.paused is None))
        return [
            Occurrence(at=_date(at), name=each.name, task=each.task, queue=self._queue(each))
            for at, _, each in islice(merged, limit)
        ]

    async def run(self, name: str) -> Job[Any]:
        """Enqueue its job now, one of its own: no occurrence, and the next one comes as ever. Paused or not."""
        return await self._dispatch.send(self._named(name).signature().call())

    async def pause(self, name: str) -> datetime:
        """Enqueue nothing at its occurrences any more; since when that holds."""
        scheduled, broker = self._named(name), await self._link.open()
        return _date(await broker.pause_schedule(self._queue(scheduled), name))

    async def resume(self, name: str) -> bool:
        """Go on with the next occurrence. False if it was not paused."""
        scheduled, broker = self._named(name), await self._link.open()
        return await broker.resume_schedule(self._queue(scheduled), name)

    def _named(self, name: str) -> Scheduled:
        if name not in self._timetable:
            raise unknown_option(name, self._timetable, "schedule")
        return self._timetable[name]

    def _queue(self, scheduled: Scheduled) -> str:
        return self._dispatch.route(scheduled.task, scheduled.signature().call())[0]

    def _info(self, scheduled: Scheduled, last: int, paused: int, now: int) -> ScheduleInfo:
        schedule = scheduled.schedule
        tz = schedule.tz or "UTC" if isinstance(schedule, Cron) else ""
        fired = last and schedule.after(last - 1) == last  # else it is when the schedule was first seen
        return ScheduleInfo(
            name=scheduled.name,
            task=scheduled.task,
            what=str(schedule).removesuffix(f" {tz}"),
            tz=tz,
            queue=self._queue(scheduled),
            last=date(last) if fired else None,
            next=() if paused else tuple(_date(at) for at, _, _ in _next(scheduled, now, SHOWN)),
            paused=date(paused),
        )


def _next(scheduled: Scheduled, now: int, limit: int) -> Iterator[tuple[int, str, Scheduled]]:
    return ((at, scheduled.name, scheduled) for at in occurrences(scheduled.schedule, now, sys.maxsize, limit))


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
