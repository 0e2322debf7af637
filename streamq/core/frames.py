"""Whose code a frame runs: the user's, an installed package's, or Python's and our own."""

from __future__ import annotations

import linecache
import os
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

_OURS: Final = str(Path(__file__).resolve().parents[1]) + os.sep
_PYTHON: Final = os.path.realpath(os.path.dirname(os.__file__)) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Origin(IntEnum):
    """Where a file comes from; the greater one is likelier to be the reader's."""

    PYTHON = 0  # and streamq, and what has no file
    INSTALLED = 1
    USER = 2


@lru_cache(maxsize=4096)
def origin(filename: str) -> Origin:
    """Whose file it is.

    >>> origin(os.__file__).name
    'PYTHON'
    """
    if filename.startswith("<"):
        return Origin.PYTHON
    path = os.path.realpath(filename)
    if path.startswith(_OURS):
        return Origin.PYTHON
    if any(folder in path for folder in _INSTALLED):
        return Origin.INSTALLED
    return Origin.PYTHON if path.startswith(_PYTHON) else Origin.USER


def is_users(filename: str) -> bool:
    """Whether a file is neither streamq's own nor an installed package's nor Python's."""
    return origin(filename) is Origin.USER


class Line(NamedTuple):
    """Where a frame is: kept, for the frame itself goes on.

    str(line)        # '/srv/shop/tasks.py:42 in build: time.sleep(5)', as far as the source can be read
    """

    filename: str
    number: int
    function: str

    def __str__(self) -> str:
        source = linecache.getline(self.filename, self.number).strip()
        return f"{self.filename}:{self.number} in {self.function}" + (f": {source}" if source else "")


def lines_of(frame: FrameType | None) -> list[Line]:
    """Where a frame is and those that called it, the innermost first."""
    found: list[Line] = []
    while frame is not None:
        found.append(Line(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname))
        frame = frame.f_back
    return found


def users_line(lines: Sequence[Line]) -> Line:
    """Of lines, the innermost first, the innermost of the user's.

    An application may be installed as a package: without a line of the user's it is the outermost installed one.
    """
    for line in lines:
        if is_users(line.filename):
            return line
    installed = [each for each in lines if origin(each.filename) is Origin.INSTALLED]
    return installed[-1] if installed else lines[0]
