"""Memory and open files of processes that live long, where the system tells: Linux."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

LONG: Final = 10.0  # seconds that a process must have lived, for its growth to say anything
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Growth(msgspec.Struct):
    """Of one process: seconds between the two looks, MiB and open files at each."""

    who: str
    seconds: float
    mib: tuple[float, float]
    files: tuple[int, int]


@dataclass(slots=True)
class Gauges:
    """First and last look at each process."""

    _first: dict[int, tuple[str, float, tuple[float, int]]] = field(
        default_factory=dict[int, "tuple[str, float, tuple[float, int]]"]
    )

    def look(self, who: str, pid: int) -> None:
        """At one that has just begun its work; at each later call nothing happens."""
        if pid not in self._first and (found := reading(pid)) is not None:
            self._first[pid] = who, time.monotonic(), found

    def grown(self) -> list[Growth]:
        """Of those that are still there, and have been for long."""
        found: list[Growth] = []
        for pid, (who, since, (mib, files)) in self._first.items():
            lived, now = time.monotonic() - since, reading(pid)
            if now is not None and lived >= LONG:
                found.append(Growth(who, round(lived, 1), (round(mib, 1), round(now[0], 1)), (files, now[1])))
        return found


def reading(pid: int) -> tuple[float, int] | None:
    """Resident MiB, and open files; None where that is not told."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        return resident / 2**20, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None
