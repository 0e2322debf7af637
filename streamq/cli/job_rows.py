"""Jobs and dead letters as the command line shows them: rows for tables and JSON, one with its failures for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.completing import task_names
from streamq.cli.console import Format, as_json, date, iso, show, show_one

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.info import JobInfo
    from streamq.core.job import Failure

COLUMNS: Final = ("id", "state", "task", "queue", "attempts", "at", "worker", "error")
# Of each state the time that a person asks for; of all others it is when the job ended.
_TIMES: Final = {
    "QUEUED": "enqueued_at",
    "SCHEDULED": "due",
    "RETRY": "due",
    "PENDING": "due",
    "STARTED": "started_at",
}

task_option = click.option("--task", metavar="GLOB", shell_complete=task_names, help="Only of this task, as 'mail.*'.")
limit_option = click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
arguments_option = click.option("--args", "with_arguments", is_flag=True, help="Its arguments too; they may be secret.")


def show_first(
    rows: Sequence[Mapping[str, Any]], limit: int, form: Format | None, *, columns: Sequence[str], empty: str, by: str
) -> None:
    """A list that ends at `limit`; if it did, stderr says so, and that `by` these options it gets shorter."""
    show(rows, form, columns=columns, empty=empty)
    if len(rows) == limit:
        click.echo(f"these are the first {limit:,}; --limit shows more, {by} fewer", err=True)


def job_row(info: JobInfo) -> dict[str, Any]:
    """All that is known of one job. `at` is when it was enqueued, began, ended or is due, as its state is."""
    return {
        "id": info.id,
        "state": info.state.value,
        "task": info.task,
        "queue": info.queue,
        "priority": info.priority,
        "attempts": info.attempts,
        "retries": info.retries,
        "at": _date(getattr(info, _TIMES.get(info.state, "finished_at"))),
        "enqueued_at": _date(info.enqueued_at),
        "eta": _date(info.eta),
        "due": _date(info.due),
        "expires": _date(info.expires),
        "started_at": _date(info.started_at),
        "finished_at": _date(info.finished_at),
        "wait": info.wait,
        "run": info.run,
        "worker": info.worker,
        "reason": info.reason,
        "cancelling": info.cancelling,
        "progress": _progress(info),
        "headers": info.headers,
        "error": said(info.error) if info.error else None,
        "failures": [failure_row(each) for each in info.failures],
    }


def failure_row(failure: Failure) -> dict[str, Any]:
    """One failed attempt."""
    return {
        "attempt": failure.attempt,
        "at": iso(failure.at),
        "worker": failure.worker,
        "error": failure.error,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def said(failure: Failure) -> str:
    """Class and message of the error."""
    return f"{failure.error}: {failure.message}"


def show_job(row: Mapping[str, Any], arguments: Mapping[str, Any], form: Format | None, *, tracebacks: bool) -> None:
    """One job: JSON has all of it; text leaves out what is empty, and has a line or more for each failed attempt."""
    if form is not None:
        show_one({**row, **arguments}, form)
        return
    told = {name: value for name, value in row.items() if name not in ("at", "failures") and not _is_empty(value)}
    failures: Sequence[Mapping[str, Any]] = row["failures"]
    for number, each in enumerate(failures, start=1):
        head = f"{each['at']}  {each['worker']}  {each['error']}: {each['message']}"
        told[f"failure {number}"] = f"{head}\n{each['traceback']}".rstrip() if tracebacks else head
    told |= {name: value if isinstance(value, str) else as_json(value) for name, value in arguments.items()}
    show_one(told, None)


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def argument_row(app: Application[Any], body: bytes | None) -> dict[str, Any]:
    """The arguments in a job's bytes without those that are secret, or why there are none to show."""
    from streamq.broker.wire import Unreadable
    from streamq.client.info import arguments

    if body is None:
        return {"arguments": "not kept: the job has ended"}
    try:
        args, kwargs = arguments(
            body, app.options, lambda task: app.tasks[task].signature if task in app.tasks else None
        )
    except Unreadable as error:
        return {"arguments": f"cannot be read: {error}"}
    return {"args": args, "kwargs": kwargs}


def _progress(info: JobInfo) -> dict[str, Any] | None:
    if info.progress is None:
        return None
    return {"done": info.progress.done, "total": info.progress.total, "note": info.progress.note}


def _date(value: datetime | None) -> str | None:
    return date(value) if value else None
