"""The fields of a crontab as Celery writes them, turned into those of a cron expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final, cast

from streamq.errors import ConfigurationError

_NAMES: Final = {
    name: number
    for names in ("SUN MON TUE WED THU FRI SAT", "_ JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
    for number, name in enumerate(names.split())
}
_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?", re.ASCII)

Field = int | str | Iterable[int | str]
"""One field of `crontab`: 5, "*/15", "mon-fri", (0, 30)."""


def field(value: object, name: str, low: int, size: int) -> str:
    """One field as text; it can hold `size` values from `low` on, and `name` is what an error calls it.

    Raises `ConfigurationError`.

        field("fri-mon", "day_of_week", 0, 7)        # '5,6,0,1'
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        terms = ["".join(term.split()) for term in value.split(",")]
        if all(terms):
            return ",".join(_term(term, low, size) for term in terms)
    elif isinstance(value, Iterable):
        parts = [field(part, name, low, size) for part in cast(Iterable[object], value)]
        if parts:
            return ",".join(sorted(parts) if isinstance(value, Set) else parts)
    raise ConfigurationError(
        f"crontab({name}={value!r}) is no cron field: give a number, text such as '*/15' or '1-5', or a list."
    )


def _term(term: str, low: int, size: int) -> str:
    term = re.sub(r"[A-Za-z]{4,}", lambda found: found[0][:3], term)  # Celery knows "monday" too
    if found := _RANGE.fullmatch(term):
        start, end = (_number(text) for text in found.group(1, 2))
        if start is not None and end is not None and low <= end < start < low + size:
            wrapped = [*range(start, low + size), *range(low, end + 1)][:: int(found[3] or 1) or 1]
            return ",".join(map(str, wrapped))
    return term


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 3 else _NAMES.get(text.upper())
