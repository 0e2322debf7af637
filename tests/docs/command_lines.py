"""What the pages tell to type: every `streamq ...` is held against the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

import click

from streamq.cli.main import streamq
from tests.docs.pages import Page

_SPAN: Final = re.compile(r"`(streamq [^`\n]+)`")
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*=")
_STARTERS: Final = {"exec", "sudo", "nohup", "time"}
_OPERATORS: Final = re.compile(r"[|&;()<>]+")


def typed(page: Page) -> Iterator[tuple[str, list[str]]]:
    """Where, and the words after `streamq`, of every command line of a page."""
    for block in page.blocks:
        text = block.text.replace("\\\n", " ")
        match block.language:
            case "console":
                lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            case "sh" | "bash" | "shell":
                lines = text.splitlines()
            case _:
                continue
        for line in lines:
            yield from ((f"{block.place}: {line.strip()}", words) for words in _commands(line))


def _commands(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    for token in [*_tokens(line), ";"]:
        if not _OPERATORS.fullmatch(token):
            words.append(token)
            continue
        while words and (_VARIABLE.match(words[0]) or words[0] in _STARTERS):
            del words[0]
        if words and words[0].rpartition("/")[2] == "streamq":
            yield words[1:]
        words = []


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def wrong(words: Sequence[str], *, whole: bool = True) -> str | None:
    """Why `streamq` would refuse these words. Unless they are a `whole` line, arguments and values may be missing."""
    try:
        _parse(streamq, "streamq", list(words), None)
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):  # --help, --version, a group alone
        return None
    except (click.MissingParameter, click.BadOptionUsage) as error:
        return error.format_message() if whole or isinstance(error, click.NoSuchOption) else None
    except click.BadParameter as error:
        file = error.param is not None and isinstance(error.param.type, click.Path | click.File)
        return error.format_message() if whole and not file else None
    except click.ClickException as error:
        return error.format_message()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _parse(command: click.Command, path: str, words: list[str], parent: click.Context | None) -> None:
    """What the command line does with its words, up to where a command would run."""
    context = command.make_context(path, words, parent)
    rest = [*getattr(context, "_protected_args", ()), *context.args]
    if isinstance(command, click.Group) and rest:
        name, found, left = command.resolve_command(context, rest)
        assert found is not None
        _parse(found, name or "", left, context)


def refused(page: Page) -> Iterator[str]:
    """Lines that could not be typed as they stand, and commands in the text that do not exist."""
    for place, words in typed(page):
        if (why := wrong(words)) is not None:
            yield f"{place}: {why}"
    for span in _SPAN.findall(page.prose):
        words = [word for word in span.split()[1:] if word not in ("...", "|")]
        if words and re.fullmatch(r"[a-z-]+", words[0]) and (why := wrong(words, whole=False)) is not None:
            yield f"{page.name}: `{span}`: {why}"
