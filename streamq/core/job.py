"""What a job is: the values that travel between producer, Redis and worker.

They are plain msgspec structs; how they become bytes is the business of `streamq.broker.wire` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Raw


class State(StrEnum):
    """Where a job is in its life. The names are Celery's where Celery has one."""

    PENDING = "PENDING"  # part of a workflow, its turn has not come
    SCHEDULED = "SCHEDULED"  # waits for its due time
    QUEUED = "QUEUED"  # runnable, no worker has taken it
    STARTED = "STARTED"  # a worker holds it
    RETRY = "RETRY"  # failed, waits for its next attempt
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def final(self) -> bool:
        """True once nothing can happen to the job any more."""
        return self in FINAL


FINAL: Final = frozenset({State.SUCCESS, State.FAILURE, State.CANCELLED, State.EXPIRED})


class Reason(StrEnum):
    """Why a job is a dead letter."""

    FAILED = "failed"  # an exception that is not retried
    EXHAUSTED = "exhausted"  # the last permitted retry failed
    REJECTED = "rejected"  # the task raised Reject
    CRASHED = "crashed"  # more than max_crashes deliveries that nobody reported on
    UNREADABLE = "unreadable"  # the entry cannot be decoded
    UNKNOWN = "unknown_task"  # no worker registered the task for an hour
    BAD_SIGNATURE = "bad_signature"  # not signed, or changed, or made for another queue, id or task
    UNDECODABLE = "undecodable"  # the application's codec could not decode its arguments


NO_KWARGS: Final = Raw(b"\x80")  # an empty map
NO_OPTIONS: Final = NO_KWARGS


class JobOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call set differently from its task. Only what was set travels. Times are milliseconds."""

    expires: int = 0  # epoch ms of the server; 0: never
    eta: int = 0  # epoch ms it was first due; 0: at once
    max_retries: int | None = None
    time_limit: int | None = None
    soft_time_limit: int | None = None
    result_ttl: int | None = None
    ignore_result: bool | None = None
    key: str = ""  # the idempotency key, as given
    codec: str = ""  # serializer of the arguments; empty: msgpack
    headers: dict[str, str] = {}
    sig: bytes = b""  # see `streamq.core.signing`; of the other options too


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """One failed attempt. `at` is epoch ms of the server."""

    error: str  # the exception's class, with its module
    message: str
    traceback: str
    at: int
    attempt: int
    worker: str = ""


# gc=False: these hold plain data and can be in no cycle; the collector need not count them.


class JobBody(msgspec.Struct, array_like=True, gc=False):
    """The body of a stream entry. The id stands beside it, in a field of its own.

    `options` stays undecoded so that a field written by a newer release survives a retry by an older one.
    What a plain call never sets stands last: it is not written at all, see `wire.encode_job`.
    """

    version: int
    task: str
    args: Raw
    enqueued_at: int  # epoch ms of the server
    kwargs: Raw = NO_KWARGS
    options: Raw = NO_OPTIONS
    retries: int = 0  # retries already spent
    failures: list[Failure] = []
    started_at: int = 0  # epoch ms the first attempt began; 0: never
    parked_at: int = 0  # epoch ms since when its task is unknown; 0: known


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of a finished job, for `result_ttl`."""

    version: int
    state: State
    task: str
    result: Raw  # msgpack nil unless SUCCESS
    error: Failure | None
    reason: str  # why it was cancelled, rejected, dead-lettered
    enqueued_at: int
    started_at: int
    finished_at: int
    worker: str
    attempts: int  # deliveries that started
    retries: int
    failures: list[Failure] = []
    priority: int = 0
    options: Raw = NO_OPTIONS


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A job that ended in FAILURE, kept until somebody retries or discards it.

    `body` is the whole job; of an unreadable entry the first 4 KB.
    """

    version: int
    job_id: str
    task: str
    reason: Reason
    error: str
    body: bytes
    priority: int
    at: int
    attempts: int
    failures: list[Failure] = []


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a running job says it is."""

    done: float
    total: float | None = None
    note: str = ""
    at: int = 0

    @property
    def fraction(self) -> float | None:
        """`done / total`, or None without a total."""
        return self.done / self.total if self.total else None


class Delivery:
    """One handing-out of one entry to one worker. `(entry, count)` with the consumer's name is the fence."""

    __slots__ = ("body", "count", "entry", "forgiven", "job_id", "priority", "queue")

    def __init__(
        self,
        queue: str,
        priority: int,
        entry: bytes,
        job_id: str,
        body: bytes,
        count: int = 1,
        forgiven: int = 0,
    ) -> None:
        self.queue = queue
        self.priority = priority
        self.entry = entry
        self.job_id = job_id
        self.body = body
        self.count = count
        self.forgiven = forgiven

    @property
    def crashes(self) -> int:
        """Earlier deliveries that nobody reported on."""
        return self.count - 1 - self.forgiven

    def __repr__(self) -> str:
        return f"<Delivery {self.job_id} {self.queue}/{self.priority} entry={self.entry.decode()} count={self.count}>"
