"""`streamq top`: queues, workers and running jobs, live."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options
from streamq.cli.exits import Exit, Screen, Stopped

if TYPE_CHECKING:
    from streamq.client.app import Application


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    envvar="STREAMQ_TOP_EVERY",
    show_envvar=True,
    metavar="SECONDS",
    help="Between two pictures.",
)
@click.option("--once", is_flag=True, help="One picture, and end; so it is without a terminal.")
@format_options
@connected
async def top(app: Application[Any], every: float, once: bool, form: Format | None) -> None:
    """Queues with depth, rate, age, failures and durations; workers; running jobs.

    \b
      streamq top
      streamq top --once --json      for a script

    Keys: up and down choose a queue, Enter opens it, p pauses or resumes it, q ends.

    Rate, failures and durations are those of the last ten seconds, as far as the queue's history reaches; durations
    are of jobs whose results are kept.
    """
    from streamq.cli.top.views import look

    if form is not None:
        from streamq.cli.console import show

        view = await look(app.broker)
        show([each.row() for each in view.queues], form, columns=())
        return
    try:
        import rich  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        screen = Screen(
            "streamq top needs the package rich", "", "it is an extra, and not installed", "pip install 'streamq[top]'"
        )
        raise Stopped(screen, Exit.FAILED) from error
    from streamq.cli.top.session import picture, watch

    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        picture(await look(app.broker))
    else:
        await watch(app.broker, every)
