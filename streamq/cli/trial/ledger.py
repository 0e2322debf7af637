"""Books of our own, kept outside of the system that they check: a file a process, a line an event, nothing buffered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INTENT: Final = "INTENT"  # the parent is about to enqueue
ACKED: Final = "ACKED"  # enqueue() returned
START: Final = "START"  # a worker begins an attempt
FAIL: Final = "FAIL"  # the attempt is about to raise, as it should
ABORT: Final = "ABORT"  # the attempt was cancelled, or raised what it should not
END: Final = "END"  # the attempt is about to return
COMMIT: Final = "COMMIT"  # a worker was told that its outcome counts
UP: Final = "UP"  # a worker takes jobs from now on
FAULT: Final = "FAULT"  # what was done to which process, as "kill-4711"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `pid` is of the process that wrote it, `at` nanoseconds since 1970."""

    event: str
    key: str
    job_id: str
    attempt: int
    at: int
    pid: int


class Ledger:
    """Appends lines to a file of this process. The line is with the kernel before `note` returns.

    A process that is killed afterwards cannot take it back.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}.ledger"
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: str, key: str, job_id: str = "-", attempt: int = 0) -> None:
        """One event."""
        os.write(self._file, f"{event} {key} {job_id} {attempt} {time.time_ns()}\n".encode())

    def note_all(self, event: str, pairs: Iterable[tuple[str, str]]) -> None:
        """The same event of many jobs, as (key, job id), at one time."""
        now = time.time_ns()
        text = "".join(f"{event} {key} {job_id} 0 {now}\n" for key, job_id in pairs)
        view = memoryview(text.encode())
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reader:
    """Reads what was added to all ledgers of a folder since the last look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[Entry]:
        """The new entries, whole lines only."""
        for path in sorted(self._folder.glob("*.ledger")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            pid = int(path.stem)
            for line in text[:whole].decode().splitlines():
                yield parsed(line, pid)

    def forget(self) -> None:
        """Empty what was read, so that a long trial fills no disk. Nobody writes meanwhile."""
        for path in self._read:
            os.truncate(path, 0)
        self._read.clear()


def parsed(line: str, pid: int) -> Entry:
    """One line as a value."""
    event, key, job_id, attempt, at = line.split(" ")
    return Entry(event, key, job_id, int(attempt), int(at), pid)
