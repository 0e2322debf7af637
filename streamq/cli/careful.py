"""Before something is destroyed: count it, and ask."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from streamq.cli.exits import Screen, Stopped
from streamq.core.shown import counted as counted

C = TypeVar("C", bound=Callable[..., Any])


def careful_options(command: C) -> C:
    """Add --yes and --dry-run to a command that destroys something."""
    command = click.option("--dry-run", is_flag=True, help="Count, and do nothing.")(command)
    return click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can answer.")(command)


def go_ahead(what: str, count: int, *, yes: bool, dry_run: bool) -> bool:
    """Whether to do it: `go_ahead("discard 3 dead letters of emails", 3, ...)`. Raises `Stopped`, `click.Abort`.

    Nothing to do is no question. Without a terminal, and without --yes, it is refused.
    """
    if dry_run or not count:
        click.echo(f"would {what}" if count else f"nothing to do: would {what}", err=True)
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        again = shlex.join(["streamq", *sys.argv[1:], "--yes"])
        raise Stopped(Screen(f"this would {what}", "", "nobody is there to be asked", again))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's cancels a task that waits for a key
    try:
        click.confirm(f"{what[0].upper()}{what[1:]}?", abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)
    return True
