"""Whose line it is, among those of a stack."""

from __future__ import annotations

import asyncio.events
import sys
from pathlib import Path

import msgspec
import pytest

from streamq.core import frames
from streamq.core.frames import Line, Origin, is_users, lines_of, origin, users_line

PYTHON = asyncio.events.__file__
INSTALLED = "/srv/venv/lib/python3.12/site-packages/shop/tasks.py"
DEPENDENCY = "/srv/venv/lib/python3.12/site-packages/requests/api.py"
USER = "/srv/shop/tasks.py"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (PYTHON, Origin.PYTHON),
        (frames.__file__, Origin.PYTHON),
        ("<frozen importlib._bootstrap>", Origin.PYTHON),
        (msgspec.__file__, Origin.INSTALLED),
        ("/usr/lib/python3/dist-packages/shop.py", Origin.INSTALLED),
        (USER, Origin.USER),
        (__file__, Origin.USER),
    ],
)
def test_whose_file_it_is(filename: str, expected: Origin) -> None:
    assert origin(filename) is expected
    assert is_users(filename) is (expected is Origin.USER)


@pytest.mark.parametrize(
    ("inner_to_outer", "expected"),
    [
        ([PYTHON, DEPENDENCY, USER, "/srv/main.py"], 2),
        ([PYTHON, DEPENDENCY, INSTALLED, PYTHON], 2),  # the application is installed: its task is the outermost
        ([PYTHON, frames.__file__], 0),
    ],
)
def test_the_users_line(inner_to_outer: list[str], expected: int) -> None:
    lines = [Line(filename, number, "f") for number, filename in enumerate(inner_to_outer)]
    assert users_line(lines).number == expected


def test_a_line_shows_its_source() -> None:
    line = lines_of(sys._getframe())[0]  # this very line
    assert str(line).startswith(f"{__file__}:{line.number} in test_a_line_shows_its_source: line = ")
    assert "# this very line" in Path(__file__).read_text().splitlines()[line.number - 1]
    assert str(Line("/nowhere.py", 3, "f")) == "/nowhere.py:3 in f"
