"""Jobs that are named by their ids: the words for that, and one verb for several of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import click

from streamq.cli.completing import queue_option
from streamq.cli.console import Format, show
from streamq.cli.exits import Exit, ending

C = TypeVar("C", bound=Callable[..., Any])

ids_argument: Final = click.argument("ids", metavar="[ID]...", nargs=-1)


def one_job(command: C) -> C:
    """Add the argument ID, as `job_id`, and --queue for whoever knows where it is."""
    return click.argument("job_id", metavar="ID")(queue_option("Default: it is looked for.")(command))


async def one_by_one(ids: Iterable[str], verb: Callable[[str], Awaitable[str]], form: Format | None) -> None:
    """Do it, and show what became of each in a row; what fails stops none of the others.

    It is told on stderr, and the first failure is the exit code.
    """
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
