"""What a trial shows while it runs: a screen that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Final, TextIO

WIDTH: Final = 30
EVERY: Final = 0.1  # seconds between two pictures
EVERY_LINE: Final = 2.0  # seconds between two plain lines
GREEN: Final = "\x1b[32m"
RED: Final = "\x1b[31m"
YELLOW: Final = "\x1b[33m"
BOLD: Final = "\x1b[1m"
DIM: Final = "\x1b[2m"
PLAIN: Final = "\x1b[0m"


@dataclass(slots=True)
class Phase:
    """One bar. `left` stands beside it, if it is not the count."""

    name: str
    total: int
    done: int = 0
    left: str = ""

    @property
    def told(self) -> str:
        """What stands beside it."""
        return self.left or f"{self.done:>6,} of {self.total:,}"


@dataclass(slots=True)
class View:
    """All that is on the screen."""

    title: str
    phases: list[Phase]
    command: str = "streamq demo"
    workers: list[str] = field(default_factory=list[str])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    news: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the trial began."""
        return time.monotonic() - self.started


class Display:
    """Shows a `View` on stderr."""

    def __init__(self, view: View, out: TextIO = sys.stderr) -> None:
        self.view = view
        self._out = out
        self._live = out.isatty()
        self._lines = 0
        self._next = 0.0

    def show(self, *, now: bool = False) -> None:
        """Draw, unless that was done a moment ago."""
        clock = time.monotonic()
        if not now and clock < self._next:
            return
        self._next = clock + (EVERY if self._live else EVERY_LINE)
        if self._live:
            self._redraw(picture(self.view))
        else:
            self._out.write(plain_line(self.view) + "\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._lines = 0
        self._out.write(f"{text}\n")
        if self._live:
            self._redraw(picture(self.view))
        self._out.flush()

    def clear(self) -> None:
        """Take the picture off the terminal."""
        if self._live and self._lines:
            self._redraw([])
            self._out.flush()

    def _redraw(self, lines: list[str]) -> None:
        up = f"\x1b[{self._lines}F" if self._lines else ""
        self._out.write(f"{up}\x1b[J" + "".join(f"{line}\n" for line in lines))
        self._lines = len(lines)


def picture(view: View) -> list[str]:
    """The screen of a terminal, line by line; none is longer than 80 columns."""
    lines = ["", f"  {BOLD}{view.command}{PLAIN}  {DIM}{view.title}{PLAIN}  {view.seconds:.1f} s", ""]
    for phase in view.phases:
        full = WIDTH * phase.done // max(1, phase.total)
        bar = f"{GREEN}{'█' * full}{PLAIN}{DIM}{'░' * (WIDTH - full)}{PLAIN}"
        lines.append(f"  {phase.name:<9}{bar} {phase.told}")
    lines += ["", *(f"  {worker}" for worker in view.workers), ""]
    lines.append("  " + " · ".join(f"{name} {count:,}" for name, count in view.counts.items()))
    lines += [f"  {YELLOW}{view.news}{PLAIN}" if view.news else "", ""]
    return lines


def plain_line(view: View) -> str:
    """The same in one line."""
    phases = ", ".join(f"{each.name} {each.left or f'{each.done:,}/{each.total:,}'}" for each in view.phases)
    counts = ", ".join(f"{name} {count:,}" for name, count in view.counts.items() if count)
    return f"{view.seconds:5.1f} s  {phases}" + (f"; {counts}" if counts else "")
