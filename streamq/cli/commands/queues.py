"""`streamq queues`: which there are, holding one back, emptying one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamq.cli.advance import advance
from streamq.cli.careful import careful_options, counted, go_ahead
from streamq.cli.chosen import queues_of
from streamq.cli.completing import queue_names
from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options, iso, show_one
from streamq.cli.main import HELP, Nearest
from streamq.cli.overview import queue_rows, show_queues

if TYPE_CHECKING:
    from streamq.client.app import Application


class Listing(Nearest):
    """A group that lists when nothing else is asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in front of options that belong to it."""
        if not ctx.resilient_parsing and (not args or (args[0].startswith("-") and args[0] not in HELP)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


name_argument = click.argument("name", metavar="NAME", shell_complete=queue_names)


@click.group(cls=Listing)
def queues() -> None:
    """Queues: what is in each (`list`, if you name no command), holding one back, emptying one."""


@queues.command("list", short_help="What is in each queue.")
@format_options
@connected
async def list_(app: Application[Any], form: Format | None) -> None:
    """How many jobs wait, run, are scheduled and are dead, how old the oldest is, whether it is paused.

    \b
      streamq queues
      streamq queues list --json
    """
    show_queues(await queue_rows(app, await queues_of(app, None)), form, empty="no queue has been used yet")


@queues.command()
@name_argument
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder: `streamq explain` says it.")
@format_options
@connected
async def pause(app: Application[Any], name: str, reason: str, form: Format | None) -> None:
    """Let no job of a queue start, on any worker, until `resume`. Running jobs go on, new ones are taken in.

    \b
      streamq queues pause emails --reason "the provider is down"
    """
    await queues_of(app, name)
    await app.queue(name).pause(reason)
    held = await app.broker.paused(name)
    show_one({"queue": name, "paused": held and iso(held.since), "reason": held.reason if held else ""}, form)


@queues.command()
@name_argument
@format_options
@connected
async def resume(app: Application[Any], name: str, form: Format | None) -> None:
    """Let the jobs of a paused queue start again, at once.

    \b
      streamq queues resume emails
    """
    await queues_of(app, name)
    was_paused = await app.queue(name).resume()
    if not was_paused:
        click.echo(f"{name} was not paused", err=True)
    show_one({"queue": name, "resumed": was_paused}, form)


@queues.command()
@name_argument
@careful_options
@format_options
@connected
async def purge(app: Application[Any], name: str, yes: bool, dry_run: bool, form: Format | None) -> None:
    """Cancel all that waits in a queue: queued, scheduled, retrying. Running jobs go on, dead letters stay.

    \b
      streamq queues purge emails --dry-run
      streamq queues purge emails --yes
    """
    await queues_of(app, name)
    queue = app.queue(name)
    count = await queue.purge(dry_run=True)
    if not go_ahead(f"cancel {counted(count, 'waiting job')} of {name}", count, yes=yes, dry_run=dry_run):
        return
    with advance("cancelling", count) as done:
        total = await queue.purge(progress=done)
    show_one({"queue": name, "cancelled": total}, form)
