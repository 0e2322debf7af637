"""`streamq result`: waits for a job and prints what it returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamq.cli.chosen import is_verbose
from streamq.cli.connected import connected
from streamq.cli.console import Format, as_json
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.one_by_one import one_job

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.handle import Job
    from streamq.errors import JobError

timeout_option = click.option("--timeout", metavar="DURATION", help="Wait no longer, as 30s; default: for ever.")


@click.command()
@one_job
@timeout_option
@click.option("--json", "form", flag_value="json", help="The job with its state and its result, or its error.")
@connected
async def result(
    app: Application[Any], job_id: str, queue: str | None, timeout: str | None, form: Format | None
) -> None:
    """Wait for a job, and print what it returned, as JSON.

    \b
      streamq result 0197c3f2a5d87b1e9c04d6a1f25b7e33 --timeout 30s

    Exit code 1: it failed, was cancelled or expired, stderr says why (-v: with the traceback). 4: there is no such
    job, or its result is no longer kept. 6: it did not end in time.
    """
    await print_result(app.job(job_id, queue), timeout, form)


async def print_result(job: Job[Any], timeout: str | None, form: Format | None) -> None:
    """The result of a job on stdout. Raises `Stopped` if it has none, or not in time."""
    from streamq import errors

    states = {errors.JobFailed: "FAILURE", errors.JobCancelled: "CANCELLED", errors.JobExpired: "EXPIRED"}
    try:
        value = await job.result(timeout)
    except errors.ResultTimeout as error:
        raise Stopped(_late(job, str(error)), Exit.TIMED_OUT) from error
    except errors.JobError as error:
        state = next((state for kind, state in states.items() if isinstance(error, kind)), None)
        if state is None:  # it is unknown, or its result no longer kept
            raise
        raise _failed(job, error, state, form) from None
    whole = {"id": job.id, "queue": job.queue, "state": "SUCCESS", "result": value}
    click.echo(as_json(value if form is None else whole))


def _late(job: Job[Any], what: str) -> Screen:
    cause = "no worker serves this queue, or the job takes longer"
    return Screen(what, f"queue {job.queue}", cause, f"streamq explain {job.id}\nstreamq result {job.id}")


def _failed(job: Job[Any], error: JobError, state: str, form: Format | None) -> Stopped:
    told, _, remote = str(error).partition("\n\nOn the worker ")
    if form is not None:
        name, trace = getattr(error, "error", ""), getattr(error, "traceback", "")
        row = {"id": job.id, "queue": job.queue, "state": state, "error": name, "message": told, "traceback": trace}
        click.echo(as_json(row))
    if is_verbose():
        return Stopped(Screen(str(error)), Exit.FAILED)
    next_line = f"streamq result {job.id} -v    shows the traceback of the worker" if remote else ""
    return Stopped(Screen(told, next=next_line), Exit.FAILED)
