"""An exception as it is stored: its class, what it said, where it was raised, and nothing that was private."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from streamq.core.job import Failure
from streamq.core.limits import MAX_TRACEBACK
from streamq.core.shown import short
from streamq.errors import StreamQError

MAX_MESSAGE: Final = 2_000  # characters
# The frames of the worker and of what it calls the task with say nothing about the task.
_STREAMQ: Final = str(Path(__file__).parents[1])
_OURS: Final = tuple(str(Path(__file__).parents[1] / floor) for floor in ("worker", "client"))


def failure_of(exc: BaseException, *, at: int, attempt: int, worker: str) -> Failure:
    """What is kept of an exception. `at` is epoch ms of the server. Never raises, whatever `str(exc)` does.

    failure_of(ValueError("no"), at=0, attempt=1, worker="w").error        # 'ValueError'
    """
    return Failure(class_name(type(exc)), _message(exc), _traceback(exc), at, attempt, worker)


def class_name(kind: type[BaseException]) -> str:
    """The class with its module; builtins stand alone, and streamq's own are where users import them from.

    >>> class_name(ValueError), class_name(StreamQError)
    ('ValueError', 'streamq.StreamQError')
    """
    if kind.__module__ == "builtins":
        return kind.__qualname__
    module = "streamq" if kind.__module__.startswith("streamq.") else kind.__module__
    return f"{module}.{kind.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ can raise anything
        text = f"<its message cannot be shown: {type(broken).__name__}>"
    return short(text.encode(errors="backslashreplace").decode(), MAX_MESSAGE)  # a lone surrogate is no msgpack text


def _traceback(exc: BaseException) -> str:
    try:
        if isinstance(exc, StreamQError) and _all_ours(exc.__traceback__):
            return "".join(traceback.format_exception_only(exc))  # nothing of the user's ran: our frames say nothing
        report = traceback.TracebackException(
            type(exc), exc, _trimmed(exc.__traceback__), capture_locals=False, max_group_depth=5
        )
        text = "".join(report.format())
    except Exception as broken:  # noqa: BLE001 - as above, in a cause or a note
        text = f"<the traceback cannot be shown: {type(broken).__name__}>\n"
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= MAX_TRACEBACK:
        return text
    half = (MAX_TRACEBACK - 40) // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"


def _all_ours(frames: TracebackType | None) -> bool:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_STREAMQ):
        frames = frames.tb_next
    return frames is None


def _trimmed(frames: TracebackType | None) -> TracebackType | None:
    """Without our own frames at the top. If all of them are ours they stay: then the fault is ours."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OURS):
        first = first.tb_next
    return first or frames


def unknown_task(name: str, known: Mapping[str, object]) -> str:
    """What the log says about a job whose task nobody here knows.

    >>> unknown_task("shop.ad", {"shop.add": 1})
    "unknown task 'shop.ad': its jobs wait for a worker that knows it, an hour at most. Nearest: shop.add"
    """
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"Nearest: {', '.join(near)}" if near else "Is the module that defines it imported by the application?"
    return f"unknown task {name[:200]!r}: its jobs wait for a worker that knows it, an hour at most. {hint}"
