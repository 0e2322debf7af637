"""`streamq timeline`: all that happened to one job, and why."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.connected import connected
from streamq.cli.console import Format, aligned, as_json, cell, date, format_options, line, tabbed
from streamq.cli.one_by_one import one_job

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.story import Step
    from streamq.client.timeline import Timeline

COLUMNS: Final = ("at", "what", "worker", "attempt", "fence", "why")


@click.command()
@one_job
@format_options
@connected
async def timeline(app: Application[Any], job_id: str, queue: str | None, form: Format | None) -> None:
    """All that happened to one job, step by step, and why.

    \b
      streamq timeline 0197c3f2a5d87b1e9c04d6a1f25b7e33

    "The e-mail was sent twice, why?" A step for each time a worker took the job: it was retried, its worker died or
    lost its lease, somebody retried a dead letter. What the steps cannot say stands below them, on stderr; with --json
    it is in "notes", with --jsonl in last lines whose "what" is "note".
    """
    told = await app.job(job_id, queue).timeline()
    rows = [row(step) for step in told.steps]
    if form == "json":
        whole = {"id": told.id, "queue": told.queue, "task": told.task, "state": told.state, "starts": told.starts}
        click.echo(as_json({**whole, "steps": rows, "notes": told.notes}))
        return
    if form == "jsonl":
        for each in [*rows, *({"what": "note", "why": note} for note in told.notes)]:
            line(each)
        return
    if sys.stdout.isatty():
        _on_a_terminal(told, rows)
    else:
        for each in rows:
            click.echo(tabbed(each, COLUMNS))
    for note in told.notes:
        click.echo(f"note: {note}", err=True)


def row(step: Step) -> dict[str, Any]:
    """One step as it is shown; what there is none of is None."""
    return {
        "at": date(step.at),
        "what": step.what,
        "worker": step.worker or None,
        "attempt": step.attempt or None,
        "fence": step.fence or None,
        "why": step.why,
    }


def _on_a_terminal(told: Timeline, rows: Sequence[dict[str, Any]]) -> None:
    """A line a step, and the reason below it, however narrow the window is."""
    click.secho(f"{told.task or 'job'} {told.id} in {told.queue}: {told.state or 'no longer kept'}", bold=True)
    shown = COLUMNS[:-1]
    widths = [max(map(len, (name, *(cell(each[name]) for each in rows)))) for name in shown]
    width = max(40, shutil.get_terminal_size().columns)
    click.secho(aligned(map(str.upper, shown), widths), dim=True)
    for each in rows:
        click.echo(aligned([cell(each[name]) for name in shown], widths))
        if each["why"]:
            click.echo(textwrap.fill(each["why"], width, initial_indent="    ", subsequent_indent="    "))
