"""What a person chose on the command line, where it may not exist: queues and tasks, with the nearest names."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.exits import Exit, Screen, Stopped

if TYPE_CHECKING:
    from streamq.client.app import Application


async def queues_of(app: Application[Any], queue: str | None) -> list[str]:
    """That queue, or without one every queue of the namespace. Raises `Stopped` for one that does not exist."""
    used = await app.broker.queues()
    if queue is None:
        return used
    known = {*used, *app.queues}
    if queue not in known:
        where = f"the namespace {app.options.namespace!r} of {app.broker.where}"
        first = f"streamq enqueue TASK --queue {shlex.quote(queue)}    its first job makes a queue"
        raise not_there("queue", queue, known, where, "streamq queues    shows what is in each" if known else first)
    return [queue]


def not_there(kind: str, name: str, known: Iterable[str], where: str, otherwise: str = "") -> Stopped:
    """The end of a command that was given a name nobody knows; what to type is the line with the nearest one.

    If none is near, it is `otherwise`.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        cause = f"it is misspelt: there is {', '.join(near)}"
    else:
        cause = f"there are {', '.join(names)}" if names else f"there is no {kind} yet"
    typed = "\n".join(again(name, each) for each in near) or otherwise
    return Stopped(Screen(f"there is no {kind} {name!r}", where, cause, typed), Exit.NOT_FOUND)


def again(wrong: str, right: str) -> str:
    """The command line as it was typed, with the right word."""
    words = [right if word == wrong else word for word in sys.argv[1:]]
    return shlex.join(["streamq", *words])


def is_verbose() -> bool:
    """Whether -v was given."""
    from streamq.cli.main import Session

    return click.get_current_context().ensure_object(Session).verbose
