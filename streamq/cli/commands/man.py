"""`streamq man`: the manual pages, made of what the commands say of themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from streamq import __version__
from streamq.cli.main import streamq, verbose_option

# Of the others roff makes a hyphen, an apostrophe, quotes and accents, which nobody could paste into a shell.
_ESCAPES: Final = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="man1")
@verbose_option
def man(folder: Path) -> None:
    """Write the manual pages: streamq.1, and one for each command.

    \b
      streamq man                              into the folder man1
      streamq man ~/.local/share/man/man1      where man finds them
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name, page in pages():
        (folder / name).write_text(page, encoding="ascii")
        written += 1
    click.echo(f"{written} pages in {folder}; to read one: man -l {folder / 'streamq.1'}", err=True)


def pages() -> Iterator[tuple[str, str]]:
    """File names and pages of all commands, those of their commands too."""
    yield from _pages(click.Context(streamq, info_name="streamq", **streamq.context_settings))


def _pages(context: click.Context) -> Iterator[tuple[str, str]]:
    yield f"{_title(context)}.1", "\n".join(_page(context)) + "\n"
    for each in _below(context):
        yield from _pages(each)


def _below(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield click.Context(command, info_name=name, parent=context)


def _title(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _page(context: click.Context) -> Iterator[str]:
    command, title = context.command, _title(context)
    yield f'.TH "{escaped(title.upper())}" "1" "" "streamq {escaped(__version__)}" "streamq"'
    yield from (".SH NAME", f"{escaped(title)} \\- {escaped(_about(command))}")
    yield from (".SH SYNOPSIS", f".B {escaped(context.command_path)}")
    yield escaped(" ".join(command.collect_usage_pieces(context)))
    yield from (".SH DESCRIPTION", *_text(command.help or ""))
    yield ".SH OPTIONS"
    for param in command.get_params(context):
        if isinstance(param, click.Option) and (record := param.get_help_record(context)):
            yield from (".TP", " ".join(map(_bold, record[0].split(" "))), *_text(record[1]))
    below = list(_below(context))
    if below:
        yield ".SH COMMANDS"
    for each in below:
        yield from (".TP", f".BR {escaped(_title(each))} (1)", escaped(_about(each.command)))
    if context.parent is not None:
        yield from (".SH SEE ALSO", f".BR {escaped(_title(context.parent))} (1)")


def _about(command: click.Command) -> str:
    return command.get_short_help_str(1_000).rstrip(".")


def _text(help: str) -> Iterator[str]:
    """Paragraphs; those that click leaves as they are, after a line \\b, are left so here."""
    for number, paragraph in enumerate(inspect.cleandoc(help).split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            lines = paragraph.splitlines()[1:]
            yield from (".nf", *map(escaped, lines), ".fi")
        else:
            yield escaped(" ".join(paragraph.split()))


def _bold(word: str) -> str:
    return f"\\fB{escaped(word)}\\fR" if word.startswith("-") else escaped(word)


def escaped(text: str) -> str:
    """A line of text as roff reads it: no control line, no escape sequence, and what is copied is what was meant.

    >>> escaped(".so -c \\\\n")
    '\\\\&.so \\\\-c \\\\en'
    """
    found = "".join(_ESCAPES.get(each, each if each.isascii() else f"\\[u{ord(each):04X}]") for each in text)
    return f"\\&{found}" if found.startswith(".") else found
