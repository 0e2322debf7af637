"""One verb for several jobs that were named by their ids: a row for each, and a failure stops none of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import click

from streamq.cli.console import Format, show
from streamq.cli.exits import Exit, ending


async def one_by_one(ids: Iterable[str], verb: Callable[[str], Awaitable[str]], form: Format | None) -> None:
    """Do it, and show what became of each; what fails is told on stderr, and the first failure is the exit code."""
    from streamq.errors import JobError

    rows: list[dict[str, Any]] = []
    code = Exit.OK
    for job_id in ids:
        try:
            rows.append({"id": job_id, "result": await verb(job_id)})
        except JobError as error:
            failed, screen = ending(error)
            code = code or failed
            click.echo(screen, err=True)
    show(rows, form, columns=("id", "result"))
    if code:
        raise click.exceptions.Exit(code)
