"""`streamq explain`: why a job does not run, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamq.cli.chosen import queues_of
from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options, show_one
from streamq.cli.exits import Exit
from streamq.cli.one_by_one import one_job
from streamq.core.shown import printable

if TYPE_CHECKING:
    from streamq.client.app import Application


@click.command()
@one_job
@format_options
@connected
async def explain(app: Application[Any], job_id: str, queue: str | None, form: Format | None) -> None:
    """Say in a sentence or two why a job does not run, or how it stands, and what to do.

    \b
      streamq explain 0197c3f2a5d87b1e9c04d6a1f25b7e33

    Exit code 4: nobody knows the id. `streamq timeline ID` shows all that happened to a job.
    """
    if queue is not None:
        await queues_of(app, queue)
    found = await app.job(job_id, queue).explain()
    if form is None:
        click.echo(printable("\n".join(filter(None, (found.cause, found.fix)))))
    else:
        show_one({"id": job_id, "state": found.state, "cause": found.cause, "fix": found.fix}, form)
    if found.state is None:
        click.get_current_context().exit(Exit.NOT_FOUND)
