"""`streamq schedule`: what an application does at which times, and holding it back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.chosen import not_there
from streamq.cli.commands.beat import no_schedules
from streamq.cli.completing import schedule_names
from streamq.cli.connected import Command, connected, unnamed
from streamq.cli.console import Format, date, format_options, show, show_one
from streamq.cli.exits import Stopped
from streamq.cli.main import Nearest

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.schedules import ScheduleInfo, Schedules

name_argument = click.argument("name", shell_complete=schedule_names)


def of_code(function: Command) -> Callable[..., None]:
    """As `connected`, for an application that must be named and have schedules. Raises `Stopped`."""
    run = connected(function)

    @functools.wraps(run)  # its click options too
    def checked(target: str | None, **options: Any) -> None:
        if target is None:
            cause = "schedules stand in the code of an application; Redis knows only when they fired"
            raise unnamed("--app", cause, "streamq schedule list --app shop.jobs:app")
        run(target=target, **options)

    return checked


def existing(app: Application[Any], name: str) -> Schedules:
    """The schedules, if there is one of that name. Raises `Stopped` with the nearest."""
    if name in app.timetable:
        return app.schedules()
    context = click.get_current_context()
    if not app.timetable:
        raise Stopped(no_schedules(context.params["target"]))
    raise not_there("schedule", name, app.timetable, context.params["target"])


def row(found: ScheduleInfo) -> dict[str, Any]:
    """One schedule as it is shown."""
    return {
        **asdict(found),
        "last": found.last and date(found.last),
        "next": [date(at) for at in found.next],
        "paused": found.paused and date(found.paused),
    }


@click.group(cls=Nearest)
def schedule() -> None:
    """Schedules: when they fire, running one now, holding one back.

    They stand in the code of an application, so it has to be named: --app, STREAMQ_APP, or `app` in streamq.toml.
    """


@schedule.command("list")
@format_options
@of_code
async def list_(app: Application[Any], form: Format | None) -> None:
    """When each schedule fired last, and fires next.

    \b
      streamq schedule list --app shop.jobs:app
    """
    rows = [row(each) for each in await app.schedules().list()]
    if form is None:
        rows = [{**each, "next": each["next"][:1]} for each in rows]
    columns = ("name", "what", "tz", "task", "queue", "last", "next", "paused")
    show(rows, form, columns=columns, empty="no schedules")


@schedule.command("next")
@click.argument("name", required=False, shell_complete=schedule_names)
@click.option("-n", "--count", type=click.IntRange(1), default=5, show_default=True, help="How many.")
@format_options
@of_code
async def next_(app: Application[Any], name: str | None, count: int, form: Format | None) -> None:
    """The next occurrences of one schedule, or of all.

    Those that are paused have none.

    \b
      streamq schedule next -n 20
      streamq schedule next nightly
    """
    schedules = app.schedules() if name is None else existing(app, name)
    rows = [{**asdict(each), "at": date(each.at)} for each in await schedules.upcoming(name, count)]
    empty = "no schedules, or all are paused" if name is None else f"{name} is paused"
    show(rows, form, columns=("at", "name", "task", "queue"), empty=empty)


@schedule.command()
@name_argument
@format_options
@of_code
async def run(app: Application[Any], name: str, form: Format | None) -> None:
    """Enqueue its job now, and print the id.

    It is no occurrence: the next one comes as ever. A schedule that is paused can be run, too.

    \b
      streamq schedule run nightly
    """
    job = await existing(app, name).run(name)
    if form is None:
        click.echo(job.id)
    else:
        show_one({"id": job.id, "schedule": name, "task": job.task, "queue": job.queue}, form)


@schedule.command()
@name_argument
@format_options
@of_code
async def pause(app: Application[Any], name: str, form: Format | None) -> None:
    """Enqueue nothing at its times, until it is resumed.

    That holds for all workers and beats, those too that are started later.

    \b
      streamq schedule pause nightly
    """
    schedules = existing(app, name)
    await schedules.pause(name)
    show_one(row(await schedules.show(name)), form)


@schedule.command()
@name_argument
@format_options
@of_code
async def resume(app: Application[Any], name: str, form: Format | None) -> None:
    """Go on with the next occurrence.

    What fell due while it was paused is not made up for.

    \b
      streamq schedule resume nightly
    """
    schedules = existing(app, name)
    if not await schedules.resume(name):
        click.echo(f"{name} was not paused", err=True)
    show_one(row(await schedules.show(name)), form)
