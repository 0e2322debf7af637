"""What a worker process of a trial does beside its jobs: it keeps a book, and goes when the trial goes."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from streamq.cli.trial.ledger import ABORT, END, START, Ledger
from streamq.client.context import Context

FOLDER: Final = "STREAMQ_TRIAL_LEDGER"
PARENT: Final = "STREAMQ_TRIAL_PARENT"


@cache
def ledger() -> Ledger:
    """This worker's book."""
    return Ledger(Path(os.environ[FOLDER]))


@contextmanager
def attempt(ctx: Context[Any], key: str) -> Generator[Ledger]:
    """Around the body of a task: when it began, and how it ended."""
    book = ledger()
    book.note(START, key, ctx.job_id, ctx.attempt)
    try:
        yield book
    except BaseException:
        book.note(ABORT, key, ctx.job_id, ctx.attempt)
        raise
    book.note(END, key, ctx.job_id, ctx.attempt)


def go_with_parent() -> None:
    """If this is a trial's worker, end when the trial does, however that ends."""
    if os.environ.get(PARENT):
        threading.Thread(target=_outlive_nobody, name="trial-parent", daemon=True).start()


def _outlive_nobody() -> None:
    os.read(0, 1)  # returns when the other end of the pipe is closed
    os._exit(1)
