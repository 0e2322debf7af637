"""How a command ends: one exit code and one screen for each kind of error."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final

import click

from streamq import errors
from streamq.core.frames import is_users
from streamq.core.shown import printable

INTERRUPTED: Final = 130  # what a shell reports of a program that Ctrl-C ended


class Exit(IntEnum):
    """What the exit codes of `streamq` mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    UNSUITABLE = 5
    TIMED_OUT = 6


@dataclass(frozen=True, slots=True)
class Screen:
    """What a person needs to go on: what happened, where, why most likely, and what to type next."""

    what: str
    where: str = ""
    cause: str = ""
    next: str = ""

    def __str__(self) -> str:
        rows = (("where", self.where), ("cause", self.cause), ("type", self.next))
        shown = [f"  {name:<7}{_indented(text, 9)}" for name, text in rows if text]
        return printable("\n".join([f"streamq: {self.what}", *([""] if shown else []), *shown]))


class Stopped(Exception):
    """A command cannot go on. It carries its screen and its exit code."""

    def __init__(self, screen: Screen, code: Exit = Exit.USAGE) -> None:
        super().__init__(str(screen))
        self.screen = screen
        self.code = code


@dataclass(frozen=True, slots=True)
class Ending:
    """How one class of errors ends a command."""

    code: Exit
    cause: str = ""
    next: str = ""


# The first class that fits counts: the special before the general.
ENDINGS: Final[tuple[tuple[type[BaseException], Ending], ...]] = (
    (errors.BrokerUnavailable, Ending(Exit.UNREACHABLE)),
    (
        errors.UnsuitableServer,
        Ending(Exit.UNSUITABLE, "jobs would not be safe on this server", "streamq demo    brings its own server"),
    ),
    (errors.JobNotFound, Ending(Exit.NOT_FOUND, "the id is misspelt, or its result has expired")),
    (errors.UnknownTask, Ending(Exit.NOT_FOUND, "the name is misspelt, or the module that defines it is not loaded")),
    (errors.ResultExpired, Ending(Exit.NOT_FOUND, "results are kept for result_ttl, one hour unless set")),
    (errors.ResultTimeout, Ending(Exit.TIMED_OUT, "no worker serves this queue, or the job takes longer")),
    (errors.ConfigurationError, Ending(Exit.USAGE)),
    (errors.EnqueueError, Ending(Exit.USAGE)),
    (errors.StreamQError, Ending(Exit.FAILED)),
    (PermissionError, Ending(Exit.FAILED, "this user may not read or write it")),
)


def ending(error: BaseException) -> tuple[Exit, Screen]:
    """The exit code and the screen for an error, whatever it is."""
    if isinstance(error, Stopped):
        return error.code, error.screen
    for kind, found in ENDINGS:
        if isinstance(error, kind):
            if isinstance(error, errors.StreamQError) and error.what:
                return found.code, Screen(error.what, error.where, error.cause, error.fix)
            return found.code, Screen(str(error), cause=found.cause, next=found.next)
    place = _place(error.__traceback__)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return Exit.FAILED, Screen(what, place, "", "the same command with -v shows the traceback")


def usage(error: click.UsageError, words: Sequence[str]) -> Screen:
    """The screen for a command line that cannot be understood; `words` are what was typed after `streamq`."""
    what = error.format_message()
    if error.ctx is None:
        return Screen(what, next="streamq --help")
    where = error.ctx.get_usage().removeprefix("Usage: ")
    typed = f"{error.ctx.command_path} --help"
    if isinstance(error, click.NoSuchOption):
        what = f"{error.ctx.command_path} has no option {error.option_name}"
        if error.possibilities:
            right = error.possibilities[0]
            mended = [word.replace(error.option_name, right) if word.startswith("-") else word for word in words]
            return Screen(what, where, f"it is misspelt: there is {right}", " ".join(["streamq", *mended]))
    return Screen(what, where, next=typed)


def report(error: BaseException, *, verbose: bool = False) -> Exit:
    """Say on stderr how the command ended; the traceback, cut to the user's frames, only if asked for."""
    code, screen = ending(error)
    click.echo(screen, err=True)
    shown = error.__cause__ if isinstance(error, Stopped) else error
    if verbose and shown is not None:
        click.echo(f"\n{users_traceback(shown)}", err=True)
    return code


def users_traceback(error: BaseException) -> str:
    """The traceback without the frames of streamq, click and the standard library.

    If none of the frames is the user's, all are shown: the fault is ours then.
    """
    found = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in found.stack if is_users(frame.filename)]
    if frames:
        found.stack = traceback.StackSummary.from_list(frames)
    found.__cause__ = found.__context__ = None
    return printable("".join(found.format()).rstrip())


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    chosen = [frame for frame in frames if is_users(frame.filename)] or list(frames)
    if not chosen:
        return ""
    last = chosen[-1]
    return f"{short_path(last.filename)}, line {last.lineno}"


def short_path(path: str) -> str:
    """The path from here if it is below, else as it is."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    except (ValueError, OSError):
        return path


def _indented(text: str, by: int) -> str:
    return ("\n" + " " * by).join(text.splitlines())
