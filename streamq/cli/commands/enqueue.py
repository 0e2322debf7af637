"""`streamq enqueue`: one job from the command line, or many from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.advance import advance
from streamq.cli.calls import signature
from streamq.cli.careful import counted
from streamq.cli.chosen import again
from streamq.cli.commands.result import print_result, timeout_option
from streamq.cli.completing import queue_option, task_names
from streamq.cli.connected import connected
from streamq.cli.console import Format, as_json, format_options, line
from streamq.cli.exits import Screen, Stopped
from streamq.cli.from_file import Rows, enqueue_lines, lines_of

if TYPE_CHECKING:
    from streamq.client.app import Application

FILE: Final = click.Path(exists=True, dir_okay=False, allow_dash=True)


def _named(ctx: click.Context, param: click.Parameter, task: str | None) -> str | None:
    # Before Redis is asked. A file counts too, and --from-file is eager for that.
    if task is None and not ctx.params.get("source") and not ctx.resilient_parsing:
        raise click.MissingParameter("Name a task, or a file of jobs with --from-file", ctx, param)
    return task


@click.command()
@click.argument("task", required=False, shell_complete=task_names, callback=_named)
@click.argument("args", metavar="[JSON]...", nargs=-1)
@click.option("--kw", "keywords", metavar="NAME=JSON", multiple=True, help="An argument by name.")
@queue_option("Default: the task's, as the application says.")
@click.option("--priority", type=click.IntRange(0, 9), help="The higher the sooner.")
@click.option("--countdown", metavar="DURATION", help="Not before, from now, as 10m.")
@click.option("--eta", metavar="DATE", help="Not before; without a zone it is UTC.")
@click.option("--expires", metavar="DURATION|DATE", help="If it has not started by then, it does not start.")
@click.option("--job-id", metavar="ID", help="The same id in the same queue is the same job.")
@click.option("--idempotency-key", metavar="KEY", help="The same key is the same job for 24 h after its end.")
@click.option("--max-retries", type=click.IntRange(0), help="Whatever the task says.")
@click.option("--header", "headers", metavar="NAME=TEXT", multiple=True, help="For the task and its middleware.")
@click.option("--wait", is_flag=True, help="Print the result instead of the id.")
@timeout_option
@click.option(
    "--from-file", "source", metavar="PATH", type=FILE, is_eager=True, help="A JSON object a line; - is stdin."
)
@format_options
@connected
async def enqueue(
    app: Application[Any], task: str | None, args: Sequence[str], keywords: Sequence[str], headers: Sequence[str],
    wait: bool, timeout: str | None, source: str | None, form: Format | None, **options: Any,
) -> None:  # fmt: skip
    """Enqueue a job, and print its id. Arguments are JSON.

    With --app the call is checked against the task; without it every name is taken.

    \b
      streamq enqueue mail.send 42 '"hello"' --kw html=true --countdown 10m
      streamq enqueue report.build --wait --timeout 30s
      streamq enqueue shop.resize -- -3                   negative numbers after --

    A line of a file names its task, and may set what an option here sets, for all lines that do not say otherwise:

    \b
      {"task": "mail.send", "args": [42], "kwargs": {"html": true}, "queue": "slow", "countdown": "10m"}
      streamq enqueue --from-file jobs.jsonl
      zcat jobs.gz | streamq enqueue --from-file - --jsonl

    With --wait the exit codes are those of `streamq result`.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if headers:
        options["headers"] = dict(_pair("--header", each) for each in headers)
    if source is not None:
        if task is not None or wait or "job_id" in options:
            raise click.UsageError("--from-file takes no task, no --wait and no --job-id: each line is a job")
        await _enqueue_file(app, source, options, form)
        return
    assert task is not None
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to --wait")
    named = {name: _json(text, f"{name}=") for name, text in (_pair("--kw", each) for each in keywords)}
    call = signature(app, task, [_json(each) for each in args], named, options)
    (job,) = await app.enqueue_many([call])
    if not wait:
        row = {"id": job.id, "task": job.task, "queue": job.queue, "deduplicated": job.deduplicated}
        click.echo(job.id if form is None else as_json(row))
        return
    click.echo(f"{job.id} is enqueued in {job.queue}", err=True)
    await print_result(_plain(app, job.id, job.queue, job.task), timeout, form)


def _plain(app: Application[Any], job_id: str, queue: str, task: str) -> Any:
    """The job with a result of plain values, whatever type the task returns."""
    from streamq.client.handle import Job

    return Job[Any](app.link, job_id, queue, task)


async def _enqueue_file(app: Application[Any], source: str, options: Mapping[str, Any], form: Format | None) -> None:
    since, count = monotonic(), 0
    kept: Rows = []
    try:
        with advance("enqueueing", lines_of(source)) as done:
            async for rows in enqueue_lines(app, source, options):
                count += len(rows)
                for row in rows if form == "jsonl" else ():
                    line(row)
                kept += rows if form == "json" else ()
                done(len(rows))
    finally:
        if form == "json":
            click.echo(as_json(kept))
        rate = count / max(monotonic() - since, 0.001)
        click.echo(f"{counted(count, 'job')} enqueued, {rate:,.0f}/s", err=True)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{option} {text!r} has no name: write NAME=...")
    return name, value


def _json(text: str, prefix: str = "") -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        right = again(prefix + text, prefix + json.dumps(text))
        raise Stopped(Screen(f"{text!r} is no JSON", "", "a text needs quotes of its own", right)) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
