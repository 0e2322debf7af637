"""What happened, a line an event, as `streamq.cli.trial.ledger` reads it; here only the standard library is at hand.

The book is that of the process group: a worker may be a manager with a child, and a kill strikes both.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path


@cache
def _file(group: int) -> int:
    path = Path(os.environ["CHAOS_FOLDER"]) / f"{group}.ledger"
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event: str, key: str = "-") -> None:
    """It is with the kernel before this returns: a kill cannot take it back. A job is known by its key alone."""
    os.write(_file(os.getpgid(0)), f"{event} {key} {key} 0 {time.time_ns()}\n".encode())


def up() -> None:
    """This worker takes jobs, or this producer enqueues, from now on."""
    note("UP")
