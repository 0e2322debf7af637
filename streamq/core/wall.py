"""The clock on the wall: what it shows at an instant, and when it shows a given time."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from streamq.errors import ConfigurationError


class Zone:
    """The wall clock of a time zone. Instants are whole seconds since the epoch, times on the wall are naive.

    Raises `ConfigurationError` for a zone that is not known.

        Zone("Europe/Berlin").wall(0)        # datetime(1970, 1, 1, 1, 0)
    """

    __slots__ = ("_tz",)

    def __init__(self, name: str) -> None:
        self._tz = _time_zone(name)

    def wall(self, second: int) -> datetime:
        """What the wall shows at this instant."""
        return datetime.fromtimestamp(second, self._tz).replace(tzinfo=None, fold=0)

    def instants(self, wall: datetime, *, or_after: bool) -> tuple[int, ...]:
        """When the wall shows this: once, twice in a repeated hour, never in a skipped one.

        `or_after`: in a skipped hour, the instant at which it ends.
        """
        aware = wall.replace(tzinfo=self._tz)
        first, second = (int(aware.replace(fold=fold).timestamp()) for fold in (0, 1))
        if first == second:
            return (first,)
        if first < second:
            return first, second
        return (self._change(second, first),) if or_after else ()

    def put_back(self, since: int, until: int) -> int | None:
        """The instant in (`since`, `until`] at which the clock is put back."""
        return self._change(since, until) if self._offset(until) < self._offset(since) else None

    def _offset(self, second: int) -> timedelta:
        return datetime.fromtimestamp(second, self._tz).utcoffset() or timedelta()

    def _change(self, before: int, after: int) -> int:
        """The first second with the offset of `after`, which that of `before` is not."""
        offset = self._offset(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == offset:
                after = middle
            else:
                before = middle
        return after


def _time_zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # known without a time zone database
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        pass
    known = available_timezones()
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Names look like 'Europe/Berlin' or 'UTC'."
    if not known:
        hint = "This machine has no time zone database: pip install tzdata"
    raise ConfigurationError(f"tz={name!r} is not a known time zone. {hint}")
