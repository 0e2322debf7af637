"""What a worker does at this moment, written to stderr when somebody sends SIGUSR1."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from streamq.worker.watchdog import describe_running
from streamq.worker.worker import Worker

STDERR: Final = 2


def dump(worker: Worker, frame: FrameType | None) -> str:
    """Running jobs and threads; `frame` is what the main thread was at. In the event loop's thread only."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own, blocks = threading.get_ident(), [f"=== worker {worker.name} (pid {os.getpid()})"]
    if worker.crew is not None:
        blocks.append(describe_running(worker.crew).rstrip())
    for ident, at in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
        shown = frame if ident == own and frame is not None else at
        blocks.append(f"--- thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(shown)).rstrip()}")
    return "\n".join([*blocks, "===", ""])


@contextmanager
def dumping(worker: Worker) -> Generator[None]:
    """Write that at SIGUSR1, even while a job holds the event loop. Only in the main thread."""

    def write(_: int, frame: FrameType | None) -> None:
        try:
            text = dump(worker, frame)
        except Exception:  # noqa: BLE001 - it would be raised in the midst of whatever runs
            text = traceback.format_exc()
        # sys.stderr may be in the midst of a line, and takes no other one from a signal handler.
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(STDERR, data) :]

    before = signal.signal(signal.SIGUSR1, write)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
