"""What was seen from outside of streamq: a file a process, a line an event, written before the event goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from streamq import current
from streamq.cli.trial.ledger import ABORT, ACKED, COMMIT, END, FAULT, INTENT, START, Entry, Ledger, Reader

__all__ = [
    "ABORT",
    "ACKED",
    "COMMIT",
    "END",
    "FAULT",
    "INTENT",
    "START",
    "Entry",
    "Ledger",
    "Reader",
    "attempt",
    "ledger_of",
]


def ledger_of(folder: Path) -> Ledger:
    """This process's own. It is never closed: a task that outlives its test must not write into another file."""
    return _opened(folder, os.getpid())


@cache
def _opened(folder: Path, pid: int) -> Ledger:
    return Ledger(folder)


@contextmanager
def attempt(ledger: Ledger, key: str) -> Iterator[None]:
    """Around the body of a task: when it began, and how it ended."""
    ctx = current()
    assert ctx is not None
    ledger.note(START, key, ctx.job_id, ctx.attempt)
    try:
        yield
    except BaseException:
        ledger.note(ABORT, key, ctx.job_id, ctx.attempt)
        raise
    ledger.note(END, key, ctx.job_id, ctx.attempt)
