"""`streamq dlq`: dead letters: which there are, why one is dead, putting back, forgetting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streamq.cli.advance import advance
from streamq.cli.careful import careful_options, counted, go_ahead
from streamq.cli.chosen import queues_of
from streamq.cli.completing import queue_option
from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options, iso, show_one
from streamq.cli.job_rows import (
    argument_row,
    arguments_option,
    failure_row,
    limit_option,
    show_first,
    show_job,
    task_option,
)
from streamq.cli.main import Nearest
from streamq.cli.one_by_one import ids_argument, one_by_one, one_job

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.dead import DeadLetters
    from streamq.core.job import DeadLetter

COLUMNS: Final = ("id", "task", "queue", "reason", "attempts", "at", "error")
SHOWN_BYTES: Final = 256  # of what cannot be read: enough to recognise who wrote it

C = TypeVar("C", bound=Callable[..., Any])
Verb = Callable[..., Awaitable[int]]  # of DeadLetters: retry or discard


def filters(command: C) -> C:
    """Add --task, --error and --before."""
    before = "Only those that died before this date, or longer ago than this duration."
    for option in (
        click.option("--before", metavar="DATE|DURATION", callback=_age, help=before),
        click.option("--error", metavar="TEXT", help="Only those whose error contains this."),
        task_option,
    ):
        command = option(command)
    return command


def which(command: C) -> C:
    """Add the ids, or --queue and the filters, of those that a verb is for; and --yes and --dry-run."""
    return ids_argument(queue_option()(filters(careful_options(command))))


def _age(_: click.Context, __: click.Parameter, value: str | None) -> str | timedelta | None:
    if value is not None:
        with suppress(ValueError):
            date = datetime.fromisoformat(value)
            aware = date if date.tzinfo else date.replace(tzinfo=UTC)
            return max(timedelta(0), datetime.now(UTC) - aware)
    return value


@click.group(cls=Nearest)
def dlq() -> None:
    """Dead letters: jobs that failed for good, kept until somebody retries or discards them."""


@dlq.command("list")
@queue_option()
@filters
@limit_option
@format_options
@connected
async def list_(
    app: Application[Any], queue: str | None, task: str | None, error: str | None, before: Any, limit: int,
    form: Format | None,
) -> None:  # fmt: skip
    """Dead letters, the newest of each queue first.

    \b
      streamq dlq list --queue emails --error ConnectError
      streamq dlq list --before 2h
    """
    rows: list[dict[str, Any]] = []
    for name in await queues_of(app, queue):
        letters = await app.dead_letters(name).list(task, error, before, limit - len(rows))
        rows += [letter_row(each, name) for each in letters]
    show_first(rows, limit, form, columns=COLUMNS, empty="no dead letters", by="the filters")


@dlq.command("show")
@one_job
@arguments_option
@click.option("--show-bytes", is_flag=True, help="Of one that could not be read its bytes; they may be secret.")
@format_options
@connected
async def show_(
    app: Application[Any], job_id: str, queue: str | None, with_arguments: bool, show_bytes: bool, form: Format | None
) -> None:
    """One dead letter: why it is dead, and what each attempt ran into.

    Of one that could not be read only some first bytes are kept: how many, and with --show-bytes which.

    \b
      streamq dlq show 0197c3f2a5d87b1e9c04d6a1f25b7e33 --args
    """
    from streamq.core.job import Reason

    letters = await _home(app, job_id, queue)
    letter = await letters.show(job_id)
    more: dict[str, Any] = {}
    if letter.reason is Reason.UNREADABLE:
        more = {"bytes_kept": len(letter.body)}
        if show_bytes:
            more["bytes"] = _hex(letter.body)
    elif with_arguments:
        more = argument_row(app, letter.body)
    show_job(letter_row(letter, letters.queue), more, form, tracebacks=True)


@dlq.command()
@which
@format_options
@connected
async def retry(app: Application[Any], ids: Sequence[str], **options: Any) -> None:
    """Put dead letters back onto their queue, with their retries reset: some by their ids, or all that match.

    \b
      streamq dlq retry 0197c3f2a5d87b1e9c04d6a1f25b7e33
      streamq dlq retry --queue emails --error ConnectError --dry-run
    """
    from streamq.client.dead import DeadLetters

    await _apply(app, DeadLetters.retry, "retry", "retried", ids, **options)


@dlq.command()
@which
@format_options
@connected
async def discard(app: Application[Any], ids: Sequence[str], **options: Any) -> None:
    """Forget dead letters for ever: some by their ids, or all that match.

    \b
      streamq dlq discard --queue emails --before 30d --yes
    """
    from streamq.client.dead import DeadLetters

    await _apply(app, DeadLetters.discard, "discard", "discarded", ids, **options)


async def _apply(
    app: Application[Any], verb: Verb, what: str, done: str, ids: Sequence[str], *,
    queue: str | None, task: str | None, error: str | None, before: Any, yes: bool, dry_run: bool, form: Format | None,
) -> None:  # fmt: skip
    matching = {"task": task, "error": error, "older_than": before}
    if not ids:
        queues = [app.dead_letters(each) for each in await queues_of(app, queue)]
        count = sum([await letters.count(**matching) for letters in queues])
        if go_ahead(f"{what} {counted(count, 'dead letter')}", count, yes=yes, dry_run=dry_run):
            with advance(what, count) as told:
                total = sum([await verb(letters, **matching, progress=told) for letters in queues])
            show_one({done: total}, form)
        return
    if any(each is not None for each in matching.values()):
        raise click.UsageError("give ids or filters, not both: an id names one already")

    async def one(job_id: str) -> str:
        return done if await verb(await _home(app, job_id, queue), job_id) else "gone"

    alone = len(ids) == 1 and what == "retry" and not dry_run  # it destroys nothing
    if alone or go_ahead(f"{what} {counted(len(ids), 'dead letter')}", len(ids), yes=yes, dry_run=dry_run):
        await one_by_one(ids, one, form)


async def _home(app: Application[Any], job_id: str, queue: str | None) -> DeadLetters:
    """The queue among whose dead letters it is. Raises `JobNotFound`."""
    from streamq.client.link import not_found

    queues = await queues_of(app, queue)
    for name in queues:
        if await app.broker.dead_one(name, job_id) is not None:
            return app.dead_letters(name)
    raise not_found(job_id, f"the dead letters of {', '.join(queues) or 'any queue'}")


def letter_row(letter: DeadLetter, queue: str) -> dict[str, Any]:
    """One dead letter."""
    return {
        "id": letter.job_id,
        "task": letter.task,
        "queue": queue,
        "priority": letter.priority,
        "reason": letter.reason.value,
        "attempts": letter.attempts,
        "at": iso(letter.at),
        "error": letter.error,
        "failures": [failure_row(each) for each in letter.failures],
    }


def _hex(data: bytes) -> str:
    cut = "" if len(data) <= SHOWN_BYTES else f" ... ({len(data):,} bytes are kept)"
    return data[:SHOWN_BYTES].hex(" ") + cut
