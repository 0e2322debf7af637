"""`streamq info`: the server, the queues and the workers at a glance."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.chosen import queues_of
from streamq.cli.connected import connected
from streamq.cli.console import Format, as_json, format_options, line, plain
from streamq.cli.overview import (
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    in_words,
    queue_rows,
    show_queues,
    show_workers,
    worker_rows,
)

if TYPE_CHECKING:
    from streamq.client.app import Application


@click.command()
@format_options
@connected
async def info(app: Application[Any], form: Format | None) -> None:
    """The server with its memory, each queue, and the live workers.

    \b
      streamq info
      streamq info --json

    In a pipe each line begins with what it is about: server, queue or worker.
    """
    inspector = await app.link.inspector()
    names, found = await queues_of(app, None), await inspector.servers()
    servers = [
        {
            "server": each.name,
            "version": each.version,
            "url": each.where,
            "namespace": app.options.namespace,
            "used_memory": each.used,
            "maxmemory": each.limit,
        }
        for each in found
    ]
    queues, workers = await queue_rows(app, names), await worker_rows(app, names)
    if form == "json":
        click.echo(as_json({"servers": servers, "queues": queues, "workers": workers}))
    elif form == "jsonl":
        for kind, rows in (("server", servers), ("queue", queues), ("worker", workers)):
            for row in rows:
                line({"kind": kind, **row})
    elif sys.stdout.isatty():
        for each in found:
            limit = f"maxmemory {_size(each.limit)}" if each.limit else "no maxmemory"
            click.echo(f"{each.name} {each.version} at {each.where}: {_size(each.used)} used, {limit}")
        click.echo()
        show_queues(queues, None, empty="no queue has been used yet")
        click.echo()
        show_workers(workers, None, empty="no live worker")
    else:
        for kind, rows, columns in (
            ("server", servers, tuple(servers[0])),
            ("queue", queues, QUEUE_COLUMNS),
            ("worker", in_words(workers), WORKER_COLUMNS),
        ):
            for row in rows:
                click.echo("\t".join((kind, *(plain(row[name]) for name in columns))))


def _size(number: int) -> str:
    return f"{number / 1_000_000:,.1f} MB"
