"""`streamq events`: what happened to which job, and, with --follow, what happens now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.chosen import queues_of
from streamq.cli.completing import queue_names
from streamq.cli.connected import connected
from streamq.cli.console import Format, aligned, format_options, iso, line, plain, show, tabbed
from streamq.cli.exits import Screen, Stopped

if TYPE_CHECKING:
    from streamq.broker.broker import Broker
    from streamq.broker.history import Feed, History, Transition
    from streamq.client.app import Application

COLUMNS: Final = ("at", "queue", "job_id", "kind", "worker", "fence", "about")
LIMIT: Final = 100
BEFORE: Final = 10  # of the past, before what is followed
# As `streamq.broker.history.TransitionKind` has them: importing that takes 100 ms.
KINDS: Final = (
    "started",
    "taken-over",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
    "acknowledged",
    "retrying",
    "snoozed",
    "parked",
    "released",
    "refused",
    "late",
    "due",
    "hastened",
    "cancelling",
    "revived",
)


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=queue_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--since", metavar="DURATION", help="Not older than this, as 10m.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help="At most so many of the past.  [default: 100; 10 with --follow]",
)
@click.option("--job", "job_id", metavar="ID", help="Of this job alone; `streamq timeline` says why, too.")
@click.option(
    "--kind", "kinds", type=click.Choice(KINDS), multiple=True, metavar="KIND", help="Only these; repeatable."
)
@format_options
@connected
async def events(
    app: Application[Any],
    queues: tuple[str, ...],
    follow: bool,
    since: str | None,
    limit: int | None,
    job_id: str | None,
    kinds: tuple[str, ...],
    form: Format | None,
) -> None:
    """What happened to the jobs of these queues, or of all, the newest last.

    \b
      streamq events emails --since 10m --kind taken-over --kind failed
      streamq events --follow --jsonl

    Each queue remembers its newest 10,000 transitions (the setting `events`). Kinds: started, taken-over (its worker
    died, lost its lease or gave it back), succeeded, failed (for good), cancelled, expired, acknowledged (early),
    retrying, snoozed, parked (unknown task), released (given back), refused (its worker had lost it), late (it had
    ended), due, hastened, cancelling, revived (from the dead letters).
    """
    if follow and form == "json":
        raise Stopped(Screen("--json is one document, and --follow has no end", next="streamq events --follow --jsonl"))
    from streamq.broker.history import Feed, History
    from streamq.core.clock import milliseconds

    history = History(app.broker)
    names = list(dict.fromkeys([name for queue in queues or (None,) for name in await queues_of(app, queue)]))
    ends = {name: await history.end(name) for name in names}
    oldest = 0 if since is None else app.broker.clock.now_ms() - milliseconds(since, name="--since")
    most = limit if limit is not None else BEFORE if follow and since is None else LIMIT

    def wanted(each: Transition) -> bool:
        return (not job_id or each.job_id == job_id) and (not kinds or each.kind in kinds)

    past = await _past(history, ends, oldest, job_id or "", most, wanted)
    if not follow:
        show([row(each) for each in past], form, columns=COLUMNS, empty="nothing that is remembered")
        if past and len(past) == most:
            click.echo(f"these are the newest {most:,}; --limit shows more", err=True)
        return
    put = _printer(form, names)
    for each in past:
        put(each)
    async with aclosing(Feed(app.broker, ends, everywhere=not queues)) as feed:
        await _follow(app.broker, feed, lambda each: put(each) if wanted(each) else None)


async def _past(
    history: History,
    ends: Mapping[str, bytes],
    oldest: int,
    job_id: str,
    most: int,
    wanted: Callable[[Transition], bool],
) -> list[Transition]:
    """At most so many of all queues together, the newest last."""
    found: list[Transition] = []
    for queue, end in ends.items():
        newest: list[Transition] = []
        async with aclosing(history.backward(queue, upto=end, since=oldest, job_id=job_id)) as transitions:
            while len(newest) < most and (each := await anext(transitions, None)) is not None:
                if wanted(each):
                    newest.append(each)
        found += reversed(newest)
    return sorted(found, key=lambda each: each.at)[-most:] if most else []


async def _follow(broker: Broker, feed: Feed, put: Callable[[Transition], None]) -> None:
    """Until Ctrl-C. While Redis is away that is said once."""
    away = False

    def say(error: BaseException, _: float) -> None:
        nonlocal away
        if not away:
            told = broker.translate(error)
            click.echo(f"{told.what or told} ({broker.where}); waiting for it", err=True)
        away = True

    async with aclosing(feed.follow(say)) as pages:
        async for page in pages:
            if away:
                click.echo("Redis answers again", err=True)
                away = False
            for each in page:
                put(each)


def _printer(form: Format | None, queues: list[str]) -> Callable[[Transition], None]:
    """How one transition is shown at once: the widths of a table cannot wait for its last row."""
    if form == "jsonl":
        return lambda each: line(row(each))
    if not sys.stdout.isatty():
        return lambda each: click.echo(tabbed(row(each), COLUMNS))
    widths = (24, max([5, *map(len, queues)]), 32, 12, 24, 2, 0)

    def put(each: Transition) -> None:
        shown = row(each)
        click.echo(aligned([plain(shown[name]) or "-" for name in COLUMNS], widths))

    return put


def row(each: Transition) -> dict[str, Any]:
    """One transition as it is shown; what there is none of is None."""
    return {
        "at": iso(each.at),
        "queue": each.queue,
        "job_id": each.job_id,
        "kind": each.kind,
        "worker": each.worker or None,
        "fence": each.fence or None,
        "seconds": each.seconds or None,
        "detail": each.detail or None,
        "about": _about(each),
    }


def _about(each: Transition) -> str:
    """Its seconds and its detail in a few words."""
    from streamq.core.clock import ago

    if each.kind == "taken-over":
        return f"the lease of {ago(each.seconds)} had run out" if each.seconds else "it had been given back"
    return f"in {ago(each.seconds)}" if each.seconds else each.detail
