"""`streamq jobs`: the jobs in Redis: listing them, one in full, cancelling, running again now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.advance import advance
from streamq.cli.careful import careful_options, counted, go_ahead
from streamq.cli.chosen import is_verbose, queues_of
from streamq.cli.completing import queue_option
from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options, show_one
from streamq.cli.job_rows import (
    COLUMNS,
    argument_row,
    arguments_option,
    job_row,
    limit_option,
    show_first,
    show_job,
    task_option,
)
from streamq.cli.main import Nearest
from streamq.cli.one_by_one import ids_argument, one_by_one, one_job

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.handle import Job

# In the order of a job's life, as `streamq.core.job.State` has them: importing that takes 50 ms.
UNFINISHED: Final = ("SCHEDULED", "RETRY", "PENDING", "QUEUED", "STARTED")
STATES: Final = (*UNFINISHED, "SUCCESS", "FAILURE", "CANCELLED", "EXPIRED")
AT_ONCE: Final = 100  # jobs under way together: they share round trips

Verb = Callable[["Job[Any]"], Awaitable[str]]


def state_option(*states: str) -> Callable[[Any], Any]:
    """--state, with the states that make sense."""
    kind = click.Choice(states, case_sensitive=False)
    return click.option("--state", type=kind, help="Only jobs in this state.")


@click.group(cls=Nearest)
def jobs() -> None:
    """Jobs: which there are, all of one, cancelling, running now."""


@jobs.command("list")
@queue_option()
@state_option(*STATES)
@task_option
@limit_option
@format_options
@connected
async def list_(
    app: Application[Any], queue: str | None, state: str | None, task: str | None, limit: int, form: Format | None
) -> None:
    """Jobs as they are now, in the order of a job's life.

    Those that wait for their time, the queued, the running, and those that ended, the newest first: as far back as
    the queue's history and the records reach, and all dead letters.

    \b
      streamq jobs list --state STARTED
      streamq jobs list --queue emails --task 'mail.*' --jsonl
    """
    from streamq.core.job import State

    rows: list[dict[str, Any]] = []
    for name in await queues_of(app, queue):
        wanted = State(state) if state else None
        rows += [job_row(each) for each in await app.queue(name).jobs(wanted, task, limit - len(rows))]
    show_first(rows, limit, form, columns=COLUMNS, empty="no such jobs", by="--state, --task and --queue")


@jobs.command("show")
@one_job
@arguments_option
@format_options
@connected
async def show_(
    app: Application[Any], job_id: str, queue: str | None, with_arguments: bool, form: Format | None
) -> None:
    """All that is known of one job: state, times, attempts and their errors.

    -v adds the tracebacks, --args the arguments.

    \b
      streamq jobs show 0197c3f2a5d87b1e9c04d6a1f25b7e33 -v
    """
    info = await app.job(job_id, queue).info()
    arguments: dict[str, Any] = {}
    if with_arguments:
        found = await app.broker.find(info.queue, job_id)
        letter = None if found.body else await app.broker.dead_one(info.queue, job_id)
        arguments = argument_row(app, letter.body if letter else found.body)
    show_job(job_row(info), arguments, form, tracebacks=is_verbose())


@jobs.command()
@ids_argument
@queue_option("Of this queue; with IDs: where they are.")
@state_option(*UNFINISHED)
@task_option
@click.option("--reason", default="", metavar="TEXT", help="Why: whoever waits for the job reads it.")
@careful_options
@format_options
@connected
async def cancel(
    app: Application[Any], ids: Sequence[str], queue: str | None, state: str | None, task: str | None, reason: str,
    yes: bool, dry_run: bool, form: Format | None,
) -> None:  # fmt: skip
    """Cancel jobs: some by their ids, or all that match.

    One that waits is gone at once, a running one is told, one that ended stays as it is.

    \b
      streamq jobs cancel 0197c3f2a5d87b1e9c04d6a1f25b7e33 --reason "withdrawn"
      streamq jobs cancel --queue emails --task 'mail.*' --state RETRY
    """

    async def verb(job: Job[Any]) -> str:
        return await job.cancel(reason)

    async def one(job_id: str) -> str:
        return await verb(app.job(job_id, queue))

    if ids and not state and not task:
        what, count = f"cancel {counted(len(ids), 'job')}", len(ids)
        if (count == 1 and not dry_run) or go_ahead(what, count, yes=yes, dry_run=dry_run):
            await one_by_one(ids, one, form)
        return
    if ids or not (queue or state or task):
        raise click.UsageError("give ids, or --queue, --state and --task, which say whose")
    found = await _matching(app, queue, (state,) if state else UNFINISHED, task)
    if go_ahead(f"cancel {counted(len(found), 'job')}", len(found), yes=yes, dry_run=dry_run):
        await _all(found, verb, form)


@jobs.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@queue_option("Default: they are looked for.")
@format_options
@connected
async def retry(app: Application[Any], ids: Sequence[str], queue: str | None, form: Format | None) -> None:
    """Run jobs now: a scheduled one or a retry becomes due, a dead letter is put back.

    \b
      streamq jobs retry 0197c3f2a5d87b1e9c04d6a1f25b7e33
    """

    async def verb(job_id: str) -> str:
        return await app.job(job_id, queue).retry_now()

    await one_by_one(ids, verb, form)


async def _matching(
    app: Application[Any], queue: str | None, states: Sequence[str], task: str | None
) -> list[Job[Any]]:
    from streamq.core.job import State

    wanted = [State(each) for each in states]
    return [
        app.job(job_id, name)
        for name in await queues_of(app, queue)
        async for job_id in app.queue(name).ids(*wanted, task=task)
    ]


async def _all(jobs: Sequence[Job[Any]], verb: Verb, form: Format | None) -> None:
    """Many at a time; what became of them is counted."""
    from streamq.errors import JobNotFound

    async def one(job: Job[Any]) -> str:
        try:
            return await verb(job)
        except JobNotFound:
            return "finished"  # since they were counted, and nothing is kept of it

    counts: Counter[str] = Counter(cancelled=0, cancelling=0, finished=0)
    with advance("cancelling", len(jobs)) as done:
        for first in range(0, len(jobs), AT_ONCE):
            answers = await asyncio.gather(*map(one, jobs[first : first + AT_ONCE]))
            counts.update(answers)
            done(len(answers))
    show_one(counts, form)
