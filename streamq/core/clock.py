"""Durations as people write them, and the server's time as a client can know it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from streamq.errors import ConfigurationError

Duration = int | float | str | timedelta
"""Seconds, a `timedelta`, or text such as "90s", "1h30m", "250ms", "2d", "1w", "1.5h"."""

FORMS: Final = 'seconds (90, 0.25), a timedelta, or text like "250ms", "90s", "1h30m", "1.5h", "2d", "1w"'
_MAX_SECONDS: Final = 3_000 * 365 * 86_400.0  # later dates fit neither datetime nor Redis' exact integers
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TEXT = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in ("w", "d", "h", "m", "s", "ms")))
_PLAIN = re.compile(_NUMBER)
_UNITS = (604_800.0, 86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds(value: Duration, *, name: str = "duration") -> float:
    """Any form of `Duration` in seconds. `name` is the option that the error speaks of.

    Raises `ConfigurationError` for anything else, negative and infinite ones included.

        seconds("1h30m")        # 5400.0
    """
    try:
        result = _parse(value)
    except OverflowError:
        result = math.inf
    if result is None or math.isnan(result):
        raise ConfigurationError(f"{name}={value!r} is not a duration: give {FORMS}.")
    if result < 0:
        raise ConfigurationError(f"{name}={value!r} is negative; a duration is 0 or more: give {FORMS}.")
    if result > _MAX_SECONDS:
        shown = repr(value) if len(str(value)) < 40 else f"{str(value)[:36]}..."
        raise ConfigurationError(f"{name}={shown} is longer than 3,000 years: give {FORMS}.")
    return result


def _parse(value: object) -> float | None:
    match value:
        case bool():
            return None
        case int() | float():
            return float(value)
        case timedelta():
            return value.total_seconds()
        case str():
            return _parse_text(value.strip())
        case _:
            return None


def _parse_text(text: str) -> float | None:
    if _PLAIN.fullmatch(text):  # an environment variable can only say 30 as text
        return float(text)
    found = _TEXT.fullmatch(text)
    if not text or not found:
        return None
    return math.fsum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)


def milliseconds(value: Duration, *, name: str = "duration") -> int:
    """Any form of `Duration` in whole milliseconds; above zero it is at least 1.

    Raises `ConfigurationError` as `seconds` does.

        milliseconds("1.5s")        # 1500
    """
    exact = seconds(value, name=name) * 1000
    return max(round(exact), 1) if exact else 0


def ago(seconds: float) -> str:
    """A span for people.

    >>> ago(0.25), ago(75), ago(9_000), ago(200_000)
    ('0.2 s', '1 min 15 s', '2 h 30 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for unit, size, below, smaller in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(seconds)


def eta_ms(eta: datetime) -> int:
    """A date as milliseconds since the epoch, rounded up: never early. A naive one is taken as UTC.

    Raises `ConfigurationError` if it is no datetime.

        eta_ms(datetime(2025, 1, 1, tzinfo=UTC))        # 1735689600000
    """
    if not isinstance(eta, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"eta={eta!r} is not a datetime. Give datetime.now(UTC) + timedelta(minutes=10),"
            " or countdown=600 to count from now."
        )
    aware = eta if eta.utcoffset() is not None else eta.replace(tzinfo=UTC)
    return -((_EPOCH - aware) // timedelta(milliseconds=1))


class ServerClock:
    """The server's time, estimated from the replies that carry it. Before any, the local clock's.

    Lua scripts ask the server itself; this one serves local deadlines and logs.

        clock.sync(server_ms, sent, received)
        clock.now_ms()
    """

    __slots__ = ("_best", "_local", "_offset")

    NOTICEABLE: Final = 0.050

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self._local = local
        self._offset = 0.0
        self._best = math.inf

    @property
    def offset(self) -> float:
        """Seconds that the server is ahead of the local clock."""
        return self._offset

    def sync(self, server_ms: int, sent: float, received: float) -> None:
        """Learn from one reply: the server said `server_ms` between local times `sent` and `received`."""
        trip = received - sent
        if trip < 0:
            return  # the local clock was set back meanwhile: the sample says nothing
        offset = server_ms / 1000 - (sent + received) / 2
        # The midpoint is wrong by at most half the round trip. A slow reply is therefore noise, except
        # where not even its own error explains the difference: then one of the two clocks was set.
        surprise = abs(offset - self._offset) > self.NOTICEABLE + trip / 2
        if trip <= 2 * self._best or surprise:
            self._offset = offset
        self._best = min(self._best, trip)

    def now_ms(self) -> int:
        """Milliseconds since the epoch by the server's clock, as far as it is known."""
        return int((self._local() + self._offset) * 1000)
