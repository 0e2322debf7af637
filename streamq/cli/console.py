"""What goes to stdout: rows as a table on a terminal, as tab-separated text in a pipe, as JSON if asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import click

from streamq.core.clock import ago as ago
from streamq.core.shown import one_line, printable, short

Row = Mapping[str, Any]
Format = Literal["text", "json", "jsonl"]
C = TypeVar("C", bound=Callable[..., Any])

WIDEST: Final = 60  # characters of a cell on a terminal; a pipe and JSON get all


def format_options(command: C) -> C:
    """Add --json and --jsonl to a command; both come as `form`."""
    for value, about in (("jsonl", "One JSON object a line."), ("json", "One JSON document.")):
        command = click.option(f"--{value}", "form", flag_value=value, help=about)(command)
    return command


def show(rows: Iterable[Row], form: Format | None, *, columns: Sequence[str], empty: str = "") -> None:
    """All rows. On a terminal and in a pipe the `columns` alone; JSON has every field of them.

    `empty` is what a person reads on stderr if there is none.
    """
    if form == "jsonl":
        for row in rows:
            line(row)
        return
    found = list(rows)
    if form == "json":
        click.echo(as_json(found))
    elif sys.stdout.isatty():
        _table([[cell(row.get(name)) for name in columns] for row in found], columns)
    else:
        for row in found:
            click.echo(tabbed(row, columns))
    if not found and empty and form is None:
        click.echo(empty, err=True)


def show_one(row: Row, form: Format | None) -> None:
    """One thing with all its fields: a line each, or one JSON object."""
    if form is not None:
        click.echo(as_json(row))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        text = plain(value) if not isinstance(value, str) else printable(value)
        shown = ("\n" + " " * (width + 2)).join(text.splitlines()) if sys.stdout.isatty() else text
        click.echo(f"{name:<{width}}  {shown}" if sys.stdout.isatty() else f"{name}\t{shown}")


def line(row: Row) -> None:
    """One JSON object on a line of its own, at once: for what goes on and on."""
    click.echo(as_json(row))


def as_json(value: object) -> str:
    """JSON with ISO times."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=str).decode()


def iso(ms: int) -> str | None:
    """Epoch milliseconds as an ISO time in UTC; None for 0.

    >>> iso(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return date(datetime.fromtimestamp(ms / 1000, UTC)) if ms else None


def date(value: datetime) -> str:
    """A date as an ISO time in UTC with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: object) -> str:
    """One value as text in a pipe: no tabs, no line breaks, nothing that commands a terminal."""
    match value:
        case None:
            text = ""
        case bool():
            text = str(value).lower()
        case datetime():
            text = date(value)
        case str() | int() | float():
            text = str(value)
        case list() | tuple() | set():
            text = ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            text = as_json(value)
    return one_line(text)


def cell(value: object) -> str:
    """One value in a table."""
    return "-" if value in (None, "", [], ()) else short(plain(value), WIDEST)


def tabbed(row: Row, columns: Sequence[str]) -> str:
    """A row in a pipe."""
    return "\t".join(plain(row.get(name)) for name in columns)


def aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    """A row in columns of these widths."""
    return "  ".join(f"{text:<{width}}" for text, width in zip(cells, widths, strict=True)).rstrip()


def _table(cells: list[list[str]], columns: Sequence[str]) -> None:
    if not cells:
        return
    heads = [name.replace("_", " ").upper() for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    click.secho(aligned(heads, widths), bold=True)
    for row in cells:
        click.echo(aligned(row, widths))
