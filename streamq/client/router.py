"""Tasks that are defined without an application."""

from __future__ import annotations

import weakref
from typing import Any, Final, Protocol

from streamq.client.registry import Registry, Scheduled
from streamq.client.task import Task


class Follower(Protocol):
    """An application, as a router knows it."""

    def adopt_task(self, task: Task[..., Any], prefix: str, queue: str) -> None:
        """Take over one task."""
        ...

    def adopt_schedule(self, scheduled: Scheduled, prefix: str) -> None:
        """Take over one schedule."""
        ...


class Router(Registry):
    """Tasks and schedules for any application: `app.include(router)`. What is added later is included too.

    router = Router()

    @router.task
    async def send(to: str) -> None: ...
    """

    def __init__(self) -> None:
        super().__init__()
        self._followers: list[tuple[weakref.ref[Follower], str, str]] = []

    def follow(self, app: Follower, prefix: str = "", queue: str = "") -> None:
        """Hand everything to an application, now and later; `Application.include` calls this."""
        for task in list(self.tasks.values()):
            app.adopt_task(task, prefix, queue)
        for scheduled in list(self.timetable.values()):
            app.adopt_schedule(scheduled, prefix)
        self._followers.append((weakref.ref(app), prefix, queue))

    def name_of(self, task: Task[..., Any]) -> str:
        """Its name before any application put a prefix to it."""
        return task.original_name

    def add_task(self, task: Task[..., Any]) -> Task[..., Any]:
        """Enter a task, here and in the applications that include this router."""
        super().add_task(task)
        for ref, prefix, queue in self._followers:
            if (app := ref()) is not None:
                app.adopt_task(task, prefix, queue)
        return task

    def add_schedule(self, scheduled: Scheduled) -> None:
        """Enter a schedule, here and in the applications that include this router."""
        super().add_schedule(scheduled)
        for ref, prefix, _ in self._followers:
            if (app := ref()) is not None:
                app.adopt_schedule(scheduled, prefix)


shared: Final = Router()
"""The router of `shared_task`: every application includes it."""

shared_task = shared.task
