"""The stacks of jobs that run: of the event loop's thread, of a task that waits, of a thread."""

from __future__ import annotations

import contextvars
import gc
import sys
import traceback
from asyncio import Task
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from streamq.client.context import current_job_id
from streamq.core.frames import Line, lines_of
from streamq.worker.limits import SoftLimit

_LOOPS: Final = ("/asyncio/events.py", "/asyncio/base_events.py", "/asyncio/runners.py", "/streamq/worker/runner.py")


def lines_in(thread: int) -> list[Line]:
    """What a thread is doing, the innermost line first."""
    return lines_of(sys._current_frames().get(thread))  # pyright: ignore[reportPrivateUsage]


def inside_the_loop(lines: list[Line]) -> list[Line]:
    """Those lines that the event loop, or the worker, has called: what stands further out only waits for it."""
    for index, line in enumerate(lines):
        if index and line.filename.endswith(_LOOPS):
            return lines[:index]
    return lines


def context_of(task: Task[Any]) -> contextvars.Context | None:
    """The context variables of an asyncio task, from whatever thread."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Python 3.11 has no name for it: of what the task refers to it is the only one of its kind.
    return next((each for each in gc.get_referents(task) if isinstance(each, contextvars.Context)), None)


def stack_of(task: Task[Any]) -> str:
    """Where a task is that waits, the innermost frame last, as a traceback shows it."""
    return "".join(traceback.format_list(traceback.StackSummary.extract((f, f.f_lineno) for f in _waiting(task))))


def stacks_of_threads() -> dict[str, str]:
    """Job id -> the stack of the thread that runs it."""
    found: dict[str, str] = {}
    for innermost in sys._current_frames().values():  # pyright: ignore[reportPrivateUsage]
        inner: list[FrameType] = []
        for frame in _outwards(innermost):
            names = frame.f_code.co_varnames
            context = frame.f_locals.get("context") if "context" in names else None  # anyio's thread calls it so
            if inner and isinstance(context, contextvars.Context) and (job_id := context.get(current_job_id)):
                lines = traceback.StackSummary.extract((f, f.f_lineno) for f in reversed(inner))
                found[job_id] = "".join(traceback.format_list(lines))
            inner.append(frame)
    return found


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waiting(task: Task[Any]) -> Iterator[FrameType]:
    """The frames of a coroutine that is suspended, and of those that it waits for: the task itself knows the first."""
    waits: Any = task.get_coro()
    while waits is not None:
        frame: FrameType | None = next(
            (found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(waits, name, None))), None
        )
        if frame is None:
            return
        yield frame
        limited = frame.f_locals.get("self")
        waits = next((found for name in ("cr_await", "gi_yieldfrom") if (found := getattr(waits, name, None))), None)
        if waits is None and isinstance(limited, SoftLimit):
            waits = limited._coro  # pyright: ignore[reportPrivateUsage] - it drives that by hand
