"""The command line as Markdown: every command, argument and option, from click."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import click

from streamq.cli.connected import connected
from streamq.cli.main import COMMANDS, HOMES, streamq
from streamq_docs.markdown import block, code, plain, table

_VARIABLE: Final = re.compile(r"\s*\[env var: (\w+)\]")
_HELP: Final = "--help"
_RANGE: Final = re.compile(r"(?:INTEGER|FLOAT)(?: RANGE)?")
HEADS: Final = ("option", "default", "variable", "meaning")


@dataclass(frozen=True)
class Missing:
    """A command that is announced, and whose module is not there."""

    name: str
    home: str
    error: str

    def __str__(self) -> str:
        return f"streamq {self.name}: {self.home} cannot be imported ({self.error})"


def find(name: str) -> click.Command | Missing:
    """A command of the table of commands."""
    module, _, attribute = HOMES[name].partition(":")
    try:
        return cast(click.Command, getattr(importlib.import_module(module), attribute))
    except Exception as error:  # noqa: BLE001 - whatever keeps it from being imported, the build names it
        return Missing(name, HOMES[name], f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Option:
    """One option of a command, for a table; `shown` and `about` are Markdown."""

    names: tuple[str, ...]
    parameter: str
    shown: str
    default: str
    variable: str
    about: str


def options(command: click.Command) -> list[Option]:
    """The options that a user can type, `--help` left out."""
    context = click.Context(command, info_name=command.name, **streamq.context_settings)
    found: list[Option] = []
    for each in command.get_params(context):
        if not isinstance(each, click.Option) or each.hidden or _HELP in each.opts:
            continue
        names = (*each.opts, *each.secondary_opts)
        value = "" if each.is_flag or each.count else f" {_RANGE.sub('NUMBER', each.make_metavar(context))}"
        about, variable = each.help or "", each.envvar if isinstance(each.envvar, str) else ""
        if written := _VARIABLE.search(about):
            about, variable = _VARIABLE.sub("", about), written[1]
        found.append(
            Option(
                names, each.name or "", ", ".join(map(code, names)) + code(value.strip()).replace("`", " `", 1),
                _default(each), variable, plain(about.strip()),
            )
        )  # fmt: skip
    return found


def _default(option: click.Option) -> str:
    value: Any = option.default
    if option.is_flag or option.multiple or callable(value) or value is None or "Sentinel" in type(value).__name__:
        return ""
    return str(value)


@click.command()
@connected
async def _any(app: object) -> None:
    """What every command has that asks Redis."""


SHARED: Final = options(_any)


def _text(command: click.Command) -> str:
    """The help of a command: paragraphs, and after a \\b its examples as they stand."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        kept = paragraph.startswith("\b")
        text = paragraph.removeprefix("\b").strip("\n")
        parts.append(block(textwrap.dedent(text), "text") if kept else plain(" ".join(text.split())))
    return "\n\n".join(filter(None, parts))


def _rows(found: list[Option]) -> list[list[str]]:
    return [[each.shown, each.default, code(each.variable), each.about] for each in found]


def _section(path: str, command: click.Command, depth: int) -> Iterator[str]:
    context = click.Context(command, info_name=path, **streamq.context_settings)
    yield f"{'#' * depth} {path}"
    yield block(" ".join([path, *command.collect_usage_pieces(context)]), "text")
    if text := _text(command):
        yield text
    every = options(command)
    own = [each for each in every if each not in SHARED]
    if own:
        yield table(HEADS, _rows(own))
    if len(every) - len(own) == len(SHARED):
        yield "And [those which say whose jobs](#options-that-many-commands-have)."
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if found := command.get_command(context, name):
                yield from _section(f"{path} {name}", found, depth + 1)


def reference() -> tuple[str, list[str]]:
    """Everything that `streamq` understands, under the headings of its `--help`."""
    parts = ["## Options that many commands have", table(HEADS, _rows(SHARED))]
    problems: list[str] = []
    for heading, section in COMMANDS.items():
        parts.append(f"## {heading}")
        for name in section:
            found = find(name)
            if isinstance(found, Missing):
                problems.append(str(found))
                parts += [f"### streamq {name}", f"Not written yet: `{found.home}`."]
            else:
                parts += _section(f"streamq {name}", found, 3)
                problems += _silent(f"streamq {name}", found)
    return "\n\n".join(parts), problems


def _silent(path: str, command: click.Command) -> Iterator[str]:
    """Commands and options that do not say what they are for."""
    if not command.help:
        yield f"{path} has no help text"
    for option in options(command):
        if not option.about:
            yield f"{path} {option.names[-1]} has no help text"
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path, **streamq.context_settings)
        for name in command.list_commands(context):
            if found := command.get_command(context, name):
                yield from _silent(f"{path} {name}", found)
