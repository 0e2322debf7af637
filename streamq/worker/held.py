"""What this worker holds, and why it would let go of one of it."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import NamedTuple

from streamq.core.job import Delivery, JobBody


class Cause(IntEnum):
    """Why a running job is cancelled. The greater one wins: whoever lost the lease may say nothing."""

    USER = 1
    TIME_LIMIT = 2
    SHUTDOWN = 3
    LOST = 4


class Cancellation(NamedTuple):
    """Stored before the task is cancelled, so that the five reasons can be told apart afterwards."""

    cause: Cause
    text: str = ""


class Holding:
    """One delivery in this worker's hands, from its receipt until Redis knows what became of it.

    Times are `time.monotonic()` seconds. `deadline` is when the lease runs out unless it is renewed.
    """

    __slots__ = (
        "adopted",
        "begun",
        "cancellation",
        "deadline",
        "delivery",
        "done",
        "early",
        "hard_limit",
        "job",
        "silent",
        "started_at",
        "successor",
        "suspect",
        "task",
        "unfenced",
    )

    def __init__(self, delivery: Delivery, deadline: float) -> None:
        self.delivery = delivery
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.job: JobBody | None = None
        self.started_at = 0  # epoch ms of the server; 0: not started
        self.begun = False  # its first step has run; before that a cancelled task would vanish unreported
        self.done = False  # it ended, and its settlement waits for the next turn
        self.early = False  # it was acknowledged before it ran
        self.unfenced = False  # that acknowledgement travels, or has arrived: its reply says whether it was ours
        self.cancellation: Cancellation | None = None
        self.hard_limit = 0.0  # when its time limit is reached; 0: it has none
        self.silent = False  # its lease is no longer renewed
        self.suspect = False
        self.adopted = False  # the sweep gave us our own entry again, with a new count
        self.successor: Delivery | None = None  # the same entry, delivered again while this copy ends

    @property
    def key(self) -> tuple[int, bytes]:
        """Unique in a queue: the stream's priority and the entry."""
        return self.delivery.priority, self.delivery.entry

    @property
    def attempt(self) -> int:
        """Which start of the job this is, from 1; a forgiven one does not count."""
        return self.delivery.count - self.delivery.forgiven + (self.job.retries if self.job is not None else 0)

    def cancel(self, cause: Cause, text: str = "") -> None:
        """Cancel it, if it has not ended. To be called in the loop's thread."""
        if self.unfenced and cause is Cause.LOST:
            return  # a renewal that was under way finds no entry any more: we took it away ourselves
        if self.done or (self.cancellation is not None and self.cancellation.cause >= cause):
            return
        self.cancellation = Cancellation(cause, text)
        if self.begun and self.task is not None:
            self.task.cancel()


Held = dict[tuple[int, bytes], Holding]


def snapshot(held: Held) -> list[Holding]:
    """A copy of the values that another thread can take while the loop goes on changing them."""
    while True:
        try:
            return list(held.values())
        except RuntimeError:  # it grew while it was copied: a garbage collection let the loop in between
            continue
