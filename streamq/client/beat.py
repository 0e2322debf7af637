"""Periodic tasks as Celery writes them down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from streamq.client.call import NO_CALL_OPTIONS, as_arguments, call_options, unknown_option
from streamq.client.registry import Scheduled, check_catch_up
from streamq.client.task import Task
from streamq.core.cron import as_schedule
from streamq.errors import ConfigurationError

_KEYS: Mapping[str, object] = dict.fromkeys(("task", "schedule", "args", "kwargs", "options", "catch_up"))


def entries(given: Mapping[str, Mapping[str, Any]], tz: str) -> Iterator[Scheduled]:
    """The entries of a `beat_schedule`. Raises `ConfigurationError` that names the entry.

    {"report": {"task": "shop.report", "schedule": crontab(hour=3), "args": (7,)}}
    """
    for name, entry in given.items():
        try:
            yield _entry(name, entry, tz)
        except ConfigurationError as error:
            raise ConfigurationError(f"beat_schedule[{name!r}]: {error}") from None


def _entry(name: str, entry: Mapping[str, Any], tz: str) -> Scheduled:
    for key in entry:
        if key not in _KEYS:
            raise unknown_option(key, _KEYS, "key of an entry")
    if not entry.get("task") or entry.get("schedule") is None:
        raise ConfigurationError("an entry needs a task and a schedule.")
    task = entry["task"]
    title = cast("Task[..., Any]", task).name if isinstance(task, Task) else str(task)
    args, kwargs = as_arguments(title, entry.get("args"), entry.get("kwargs"))
    options = call_options(NO_CALL_OPTIONS, entry.get("options") or {})
    schedule = as_schedule(entry["schedule"], tz)
    return Scheduled(name, title, schedule, args, kwargs, check_catch_up(entry.get("catch_up", "last")), options)
