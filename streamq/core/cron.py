"""When periodic jobs are due: cron expressions in a time zone, and plain intervals.

Everything speaks of milliseconds since the epoch, and is the same on every machine that is asked: any
worker may offer an occurrence, and all of them mean the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from cronsim import CronSim, CronSimError

from streamq.core.clock import Duration, milliseconds
from streamq.core.crontab import Field, field
from streamq.core.wall import Zone
from streamq.errors import ConfigurationError

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L for the last day, LW for the last weekday",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 (0 and 7 are Sunday) or SUN-SAT, MON#1 for the first Monday, 5L for the last Friday",
}
_EXAMPLE: Final = "For example '0 3 * * *' is every day at 03:00, '*/15 * * * *' every 15 minutes."
_HORIZON: Final = 4 * 3600  # seconds; no clock of today is put back by more at once


@runtime_checkable
class Schedule(Protocol):
    """When something is due, in milliseconds since the epoch."""

    def after(self, ms: int) -> int:
        """The first occurrence strictly later than `ms`."""
        ...

    def latest(self, ms: int, since: int) -> int | None:
        """The newest occurrence later than `since` and not later than `ms`, if there is one."""
        ...


class Every:
    """An interval, counted from the epoch, so that all workers agree on the moments.

    Raises `ConfigurationError` for anything that is no duration of a millisecond or more.

        Every("90s").after(0)        # 90000
    """

    __slots__ = ("interval_ms",)

    def __init__(self, interval: Duration) -> None:
        self.interval_ms: Final = milliseconds(interval, name="every")
        if self.interval_ms < 1:
            raise ConfigurationError(f"every={interval!r} would always be due: give an interval above 0, as '90s'.")

    def after(self, ms: int) -> int:
        """The first multiple of the interval that is later than `ms`."""
        return (ms // self.interval_ms + 1) * self.interval_ms

    def latest(self, ms: int, since: int) -> int | None:
        """The newest multiple of the interval in (`since`, `ms`]."""
        newest = ms - ms % self.interval_ms
        return newest if newest > since else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Every) and other.interval_ms == self.interval_ms

    def __hash__(self) -> int:
        return hash((Every, self.interval_ms))

    def __repr__(self) -> str:
        return f"Every({self.interval_ms / 1000})"

    def __str__(self) -> str:
        rest, parts = self.interval_ms, ""
        for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
            parts += f"{rest // size}{unit}" if rest >= size else ""
            rest %= size
        return f"every {parts}"


class Cron:
    """A cron expression of five fields, or six with the seconds first, read in the time zone `tz`.

    Summer time is handled as Debian's cron does. A job at fixed times (neither minute nor hour begin with
    a star) that falls into the skipped hour runs when that hour ends, and one in the repeated hour runs
    once, the first time. Any other job runs whenever the clock on the wall shows a matching time.

    Without `tz` it is UTC, until `as_schedule` puts the application's in its place. If neither
    day-of-month nor day-of-week begins with a star, cron takes a day that matches either;
    `both_days=True` asks for both. Raises `ConfigurationError`.

        Cron("0 3 * * MON-FRI", tz="Europe/Berlin").after(now_ms)
    """

    __slots__ = ("_at_fixed_times", "_simulator", "_zone", "both_days", "expression", "tz")

    def __init__(self, expression: str, tz: str | None = None, *, both_days: bool = False) -> None:
        self.expression: Final = " ".join(_text(expression).split())
        self.tz: Final = tz
        self._zone = Zone(tz or "UTC")
        # Without a time zone the simulator only walks over the times a wall clock can show. Which instants
        # these are is decided here: its own answers go back in time within a repeated hour, and lose
        # occurrences where the clock is moved by half an hour.
        self._simulator = _parse(self.expression)
        self.both_days: Final = both_days and not self._simulator.day_and
        self._simulator.day_and |= both_days
        _, minute, hour, *_ = self._simulator.parts
        self._at_fixed_times = not minute.startswith("*") and not hour.startswith("*")
        next(self._walls(datetime(2000, 1, 1)))

    def after(self, ms: int) -> int:
        """The first occurrence later than `ms`."""
        second = ms // 1000
        if self._at_fixed_times:
            return 1000 * self._after_at_fixed_times(second)
        return 1000 * self._after_whenever_shown(second)

    def _after_at_fixed_times(self, second: int) -> int:
        walls = self._walls(self._zone.wall(second))
        return next(found for wall in walls if (found := self._zone.instants(wall, or_after=True)[0]) > second)

    def _after_whenever_shown(self, second: int) -> int:
        start = self._zone.wall(second)
        if turn := self._zone.put_back(second, second + _HORIZON):
            found = second + _seconds(next(self._walls(start)) - start)
            if found < turn:
                return found
            # From here on the wall shows again what it showed before.
            second, start = turn - 1, self._zone.wall(turn) - timedelta(seconds=1)
        return next(
            found
            for wall in self._walls(start)
            for found in self._zone.instants(wall, or_after=False)
            if found > second
        )

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """The matching wall clock times later than `start`."""
        simulator = copy(self._simulator)
        simulator.dt = start
        yield from simulator
        raise ConfigurationError(f"cron expression {self.expression!r} never comes true: no such day. {_EXAMPLE}")

    def latest(self, ms: int, since: int) -> int | None:
        """The newest occurrence in (`since`, `ms`], found by bisection: a year of seconds costs no more."""
        span = 1000
        while (found := self.after(max(since, ms - span))) > ms:
            if ms - span <= since:
                return None
            span *= 4
        until = ms
        while found < until:  # found is an occurrence, and there is none in (until, ms]
            middle = (found + until) // 2
            if (later := self.after(middle)) <= ms:
                found = later
            else:
                until = middle
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and other._identity() == self._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[tuple[str, ...], str, bool]:
        return tuple(self._simulator.parts), self.tz or "UTC", self.both_days

    def __repr__(self) -> str:
        tz = f", tz={self.tz!r}" if self.tz else ""
        return f"Cron({self.expression!r}{tz}{', both_days=True' if self.both_days else ''})"

    def __str__(self) -> str:
        return f"{self.expression}{' on both days' if self.both_days else ''} {self.tz or 'UTC'}"


def _seconds(difference: timedelta) -> int:
    return difference // timedelta(seconds=1)


def _text(expression: object) -> str:
    if isinstance(expression, str):
        return expression
    raise ConfigurationError(f"cron expression {expression!r} is not a str. {_EXAMPLE}")


def _parse(expression: str) -> CronSim:
    if expression.startswith("@") and expression.lower() not in NICKNAMES:
        raise ConfigurationError(
            f"cron expression {expression!r} is not known: give one of {', '.join(NICKNAMES)}. {_EXAMPLE}"
        )
    fields = NICKNAMES.get(expression.lower(), expression).split()
    if len(fields) not in (5, 6):
        raise ConfigurationError(
            f"cron expression {expression!r} has {len(fields)} fields; it needs 5 (minute hour day-of-month"
            f" month day-of-week), or 6 with the seconds first. {_EXAMPLE}"
        )
    try:
        return CronSim(" ".join(fields), datetime(2000, 1, 1))
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        wrong = str(error).removeprefix("Bad ")
        names = list(_FIELDS)[-len(fields) :]
        if wrong not in names:
            raise ConfigurationError(f"cron expression {expression!r} cannot be read. {_EXAMPLE}") from None
        raise ConfigurationError(
            f"cron expression {expression!r}: {fields[names.index(wrong)]!r} is no valid {wrong}"
            f" ({_FIELDS[wrong]}; also *, a-b, */n and lists). {_EXAMPLE}"
        ) from None


def crontab(
    minute: Field = "*",
    hour: Field = "*",
    day_of_week: Field = "*",
    day_of_month: Field = "*",
    month_of_year: Field = "*",
    tz: str | None = None,
) -> Cron:
    """A `Cron` written as Celery writes it: numbers, text or iterables; ranges may wrap ("fri-mon").

    As in Celery a day must match day_of_week and day_of_month both. Raises `ConfigurationError`.

        crontab(minute=0, hour="*/3", day_of_week="mon-fri")
    """
    fields = (
        field(minute, "minute", 0, 60),
        field(hour, "hour", 0, 24),
        field(day_of_month, "day_of_month", 1, 31),
        field(month_of_year, "month_of_year", 1, 12),
        field(day_of_week, "day_of_week", 0, 7),
    )
    return Cron(" ".join(fields), tz, both_days=True)


def as_schedule(value: str | Duration | Schedule, tz: str = "UTC") -> Schedule:
    """The schedule that a user means: text with spaces or an "@" is cron, a duration is an interval.

    `tz` is used where the value names none. Raises `ConfigurationError`.

        as_schedule("0 3 * * *", "Europe/Berlin"); as_schedule("90s"); as_schedule(30.0)
    """
    match value:
        case Cron(tz=None):
            return Cron(value.expression, tz, both_days=value.both_days)
        case str() if " " in value.strip() or value.strip().startswith("@"):
            return Cron(value, tz)
        case int() | float() | str() | timedelta():
            return Every(value)
        case Schedule():
            return value
        case _:
            raise ConfigurationError(
                f"schedule {value!r} cannot be read: give a cron expression, seconds, a duration like '90s',"
                f" or an object with after() and latest(). {_EXAMPLE}"
            )


def occurrences(schedule: Schedule, after_ms: int, until_ms: int, limit: int) -> Iterator[int]:
    """The occurrences in (`after_ms`, `until_ms`], oldest first, at most `limit` of them.

    list(occurrences(Every(60), 0, 180_000, limit=10))        # [60000, 120000, 180000]
    """
    for _ in range(limit):
        after_ms = schedule.after(after_ms)
        if after_ms > until_ms:
            return
        yield after_ms
