"""Markdown out of values and docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

_CODE: Final = re.compile(r"(`+[^`]*`+)")
_MARKS: Final = re.compile(r"([\\*<\[\]])")


def plain(text: str) -> str:
    """Text with nothing in it that Markdown would read, but code between backticks.

    >>> plain("`a<b` for *.x")
    '`a<b` for \\\\*.x'
    """
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else _MARKS.sub(r"\\\1", part) for part in parts)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """A name or a value in the middle of a line; nothing for nothing."""
    return f"`{text}`" if text else ""


def block(text: str, language: str) -> str:
    """A fenced block."""
    return f"```{language}\n{text.strip()}\n```"


def duration(seconds: float) -> str:
    """
    >>> duration(30), duration(600), duration(3600), duration(0.5)
    ('30 s', '10 min', '1 h', '500 ms')
    """
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{timedelta(seconds=seconds) / timedelta(milliseconds=1):g} ms"


def prose(docstring: str) -> str:
    """A docstring as Markdown: its examples, indented or not, become Python blocks."""
    found: list[str] = []
    for paragraph in _paragraphs(docstring):
        if paragraph.startswith("    ") or _is_python(paragraph):
            lines = paragraph.splitlines()
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            found.append(block("\n".join(line[margin:] for line in lines), "python"))
        else:
            found.append(plain(paragraph))
    return "\n\n".join(found)


def _paragraphs(docstring: str) -> list[str]:
    """Split at empty lines, but not inside an example."""
    parts: list[str] = []
    for part in re.split(r"\n\s*\n", docstring.strip()):
        continues = part.startswith(("    ", "@", "async ", "def ", "class ", "await "))
        if parts and continues and (parts[-1].startswith("    ") or _is_python(parts[-1])):
            parts[-1] += f"\n\n{part}"
        else:
            parts.append(part)
    return parts


def _is_python(text: str) -> bool:
    try:
        tree = compile(text, "docstring", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    body: list[ast.stmt] = getattr(tree, "body", [])
    return not all(isinstance(each, ast.Expr) and isinstance(each.value, ast.Name) for each in body)
