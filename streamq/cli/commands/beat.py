"""`streamq beat`: one process that fires the schedules of an application, and runs no jobs."""

from __future__ import annotations

import asyncio
from typing import Literal

import click

from streamq.cli.commands.worker import log_options
from streamq.cli.connected import loaded, unnamed
from streamq.cli.exits import Screen, Stopped
from streamq.cli.main import verbose_option


@click.command()
@click.argument("target", metavar="MODULE[:APP]", envvar="STREAMQ_APP", required=False)
@log_options
@click.option("--url", metavar="URL", help="Redis, whatever the application says.  [env var: STREAMQ_URL]")
@verbose_option
def beat(target: str | None, log_level: str, log_format: Literal["text", "json"], url: str | None) -> None:
    """Fire the schedules of an application, and run no jobs.

    \b
      streamq beat shop.jobs:app
      streamq worker shop.jobs:app --no-beat      beside it

    Workers fire schedules themselves: beat is for those who want them fired where no jobs run, or while no worker
    does. Each occurrence is enqueued once, however many fire it. SIGTERM or Ctrl-C ends it.
    """
    from streamq.worker import log
    from streamq.worker.beat import beat as run

    if target is None:
        raise unnamed("the command line", "schedules stand in the code of an application", "streamq beat shop.jobs:app")
    app = loaded(target, url, "streamq beat")
    if not app.timetable:
        raise Stopped(no_schedules(target))
    log.configure(log_level, log_format)
    asyncio.run(run(app))


def no_schedules(target: str) -> Screen:
    """The screen for an application that fires nothing."""
    return Screen(
        f"{target} has no schedules",
        "",
        "nothing in it is marked with @app.cron or @app.every, or the module that does is not imported",
        '@app.cron("0 3 * * *")    above a task',
    )
