"""Completion of what stands in Redis and in the application: names of queues and of tasks.

A shell waits for the answer, so Redis has a second, and whoever cannot answer says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from streamq.client.app import Application

PATIENCE: Final = 1.0  # seconds

Ask = Callable[["Application[Any]"], Awaitable[Iterable[str]]]
C = TypeVar("C", bound=Callable[..., Any])


def queue_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Every queue of the namespace, and those that the application's tasks name."""

    async def ask(app: Application[Any]) -> list[str]:
        return await (await app.link.open(0)).queues()

    app = _application(ctx)
    return _beginning(incomplete, [] if app is None else [*app.queues, *_answers(app, ask)])


def task_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The tasks of all live workers, and those of the application."""

    async def ask(app: Application[Any]) -> list[str]:
        broker = await app.link.open(0)
        inspector = await app.link.inspector()
        workers = [worker for queue in await broker.queues() for worker in await inspector.workers(queue)]
        return [task for worker in workers for task in worker.tasks]

    app = _application(ctx)
    return _beginning(incomplete, [] if app is None else [*app.tasks, *_answers(app, ask)])


def schedule_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The schedules of the application; Redis is not asked."""
    app = _application(ctx)
    return _beginning(incomplete, [] if app is None else app.timetable)


def queue_option(about: str = "Default: all queues.") -> Callable[[C], C]:
    """The option -q/--queue, whose names are completed."""
    return click.option("-q", "--queue", metavar="NAME", shell_complete=queue_names, help=about)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _application(ctx: click.Context) -> Application[Any] | None:
    """The application that the line so far names. Its module may print and fail as it likes."""
    from streamq.cli import project
    from streamq.cli.connected import application

    said: dict[str, Any] = {name: ctx.params.get(name) for name in ("target", "url", "namespace")}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            project.find().apply()
            said["target"] = said["target"] or os.environ.get("STREAMQ_APP") or None
            return application(**said)
        except (Exception, SystemExit):  # noqa: BLE001 - there is nobody to tell
            return None


def _answers(app: Application[Any], ask: Ask) -> list[str]:
    if app.link.url.startswith("embedded:"):  # nobody starts a server to complete a word
        return []

    async def within() -> list[str]:
        try:
            async with asyncio.timeout(PATIENCE):
                return list(await ask(app))
        finally:
            await app.close()

    try:
        return asyncio.run(within())
    except Exception:  # noqa: BLE001 - there is nobody to tell
        return []
