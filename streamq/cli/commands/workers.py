"""`streamq workers`: who lives, and what each runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamq.cli.chosen import queues_of
from streamq.cli.completing import queue_option
from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options
from streamq.cli.overview import show_workers, worker_rows

if TYPE_CHECKING:
    from streamq.client.app import Application


@click.command()
@queue_option()
@format_options
@connected
async def workers(app: Application[Any], queue: str | None, form: Format | None) -> None:
    """The live workers: where each is, its queues, how many of its slots are taken, and what it runs.

    What a worker runs is as of its last heartbeat, a fifth of the lease ago at most.

    \b
      streamq workers
      streamq workers --queue emails --json
    """
    show_workers(await worker_rows(app, await queues_of(app, queue)), form, empty="no live worker")
