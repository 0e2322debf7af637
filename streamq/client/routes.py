"""Which queue a task's jobs go to, if neither the call nor the task says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypedDict, cast

from streamq.client.call import priority, queue_name
from streamq.core.options import DEFAULT_QUEUE
from streamq.errors import ConfigurationError


class Route(TypedDict, total=False):
    """Where to, and how urgent."""

    queue: str
    priority: int


Target = str | Route | None
Routes = Mapping[str, str | Route] | Callable[[str], Target]

_NOWHERE: tuple[str, int | None] = (DEFAULT_QUEUE, None)


class RouteTable:
    """Rules from task names to queues: the exact name first, then the patterns in their order.

    Raises `ConfigurationError` for a rule that cannot be used.

        RouteTable({"images.*": "images", "mail.send": {"queue": "mail", "priority": 5}})
    """

    def __init__(self, routes: Routes | None) -> None:
        self._ask = routes if callable(routes) else None
        self._rules: dict[str, tuple[str, int | None]] = {}
        self._cache: dict[str, tuple[str, int | None]] = {}
        if routes is not None and not callable(routes):
            if not isinstance(routes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"routes={routes!r} is neither a dict nor a function of the task's name.")
            self._rules = {name: _target(name, target) for name, target in routes.items()}

    @property
    def queues(self) -> list[str]:
        """All queues that the rules name."""
        return list(dict.fromkeys(queue for queue, _ in self._rules.values()))

    def __call__(self, task: str) -> tuple[str, int | None]:
        """Queue and priority (None: the task's own) for a task."""
        if self._ask is not None:
            answer = self._ask(task)
            return _NOWHERE if answer is None else _target(task, answer)
        if (found := self._cache.get(task)) is None:
            found = self._cache[task] = self._match(task)
        return found

    def _match(self, task: str) -> tuple[str, int | None]:
        if task in self._rules:
            return self._rules[task]
        matching = (target for pattern, target in self._rules.items() if fnmatchcase(task, pattern))
        return next(matching, _NOWHERE)


def _target(name: str, target: object) -> tuple[str, int | None]:
    if isinstance(target, Mapping):
        said = dict(cast(Mapping[str, Any], target))
        queue, level = said.pop("queue", DEFAULT_QUEUE), said.pop("priority", None)
        if said:
            raise ConfigurationError(f"routes[{name!r}]: {', '.join(said)} is not known: give queue and priority.")
        return queue_name(f"routes[{name!r}]", queue), None if level is None else priority(
            f"the priority of routes[{name!r}]", level
        )
    return queue_name(f"routes[{name!r}]", target), None
