"""What is known of one job, as its owner reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from msgspec import Raw

from streamq.broker import wire
from streamq.broker.broker import Found
from streamq.client.signature import Parameters
from streamq.core.codec import unseal
from streamq.core.job import NO_OPTIONS, Failure, JobBody, JobOptions, Progress, Record, State
from streamq.core.options import AppOptions
from streamq.core.outcome import NIL, RECORD_VERSION

_STATES: Final = {
    "stream": State.QUEUED,
    "running": State.STARTED,
    "due": State.SCHEDULED,
    "retry": State.RETRY,
    "parked": State.PENDING,
}


class Cancellation(StrEnum):
    """What `cancel` could do."""

    CANCELLED = "cancelled"  # it was waiting, and will never run
    CANCELLING = "cancelling"  # it is running, and its worker has been told
    FINISHED = "finished"  # it had ended already


class Restart(StrEnum):
    """What `retry_now` could do."""

    DUE = "due"  # it waited for its time or its retry, and runs as soon as a worker is free
    REVIVED = "revived"  # it was a dead letter, and is back on its queue with its retries reset


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """One job at one moment. Dates are aware and UTC; None is not known, or not yet.

    `wait` is the seconds from enqueue to start, `run` those of the last attempt; `failures` are the failed
    attempts, the oldest first; `reason` says why it was cancelled or became a dead letter.
    """

    id: str
    queue: str
    task: str
    state: State
    priority: int
    attempts: int
    retries: int
    enqueued_at: datetime | None
    eta: datetime | None
    due: datetime | None
    expires: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    wait: float | None
    run: float | None
    worker: str
    reason: str
    progress: Progress | None
    cancelling: bool
    error: Failure | None = None
    failures: list[Failure] = field(default_factory=list[Failure])
    headers: dict[str, str] = field(default_factory=dict[str, str])


def state_of(found: Found) -> State:
    """The state that follows from where a job is."""
    if found.record is not None and (found.record.state.final or found.where == "gone"):
        return found.record.state
    return _STATES[found.where]


def read_job(body: bytes | None, max_payload: int) -> tuple[JobBody | None, JobOptions]:
    """The job in a body, if there is one that can be read."""
    if body is None:
        return None, JobOptions()
    try:
        job = wire.decode_job(body, max_payload)
    except wire.Unreadable:
        return None, JobOptions()
    return job, read_options(job.options)


def read_options(raw: Raw) -> JobOptions:
    """What the call had set; nothing, if it cannot be read."""
    try:
        return wire.decode_options(raw)
    except wire.Unreadable:
        return JobOptions()


def describe(found: Found, max_payload: int, since: int, now: int) -> JobInfo:
    """All that Redis knows of a job, in one value. A running one runs `since` epoch ms; 0 is not running."""
    if found.record is not None:
        return _finished(found, found.record)
    job, options = read_job(found.body, max_payload)
    failures = job.failures if job else []
    return JobInfo(
        id=found.job_id,
        queue=found.queue,
        task=job.task if job else "",
        state=state_of(found),
        priority=found.priority,
        attempts=found.delivery - found.forgiven + (job.retries if job else 0),
        retries=job.retries if job else 0,
        enqueued_at=date(job.enqueued_at) if job else None,
        eta=date(options.eta),
        due=date(found.due),
        expires=date(options.expires),
        started_at=date(since or (job.started_at if job else 0)),
        finished_at=None,
        wait=_between(job.enqueued_at, since or job.started_at) if job else None,
        run=_between(since, now),
        worker=found.consumer if found.where == "running" else "",
        reason=_reason(found, job),
        progress=found.progress,
        cancelling=found.cancelling is not None,
        error=failures[-1] if failures else None,
        failures=failures,
        headers=options.headers,
    )


def arguments(
    body: bytes, settings: AppOptions, parameters: Callable[[str], Parameters | None] = lambda _: None
) -> tuple[list[object], dict[str, object]]:
    """The arguments of a job as people may see them. Raises `wire.Unreadable`.

    `parameters` are those of a task, by its name: which of them are secret nobody else knows.
    """
    job = wire.decode_job(body, settings.max_payload)
    return arguments_of(job, settings, parameters(job.task))


def arguments_of(
    job: JobBody, settings: AppOptions, parameters: Parameters | None
) -> tuple[list[object], dict[str, object]]:
    """The same, of a job that was decoded."""
    codec = wire.decode_options(job.options).codec
    if codec not in ("", *wire.CODECS):
        raise wire.Unreadable(f"its arguments are serialised as {codec!r}, which this release does not know")
    decoder = wire.CODECS[codec or "msgpack"].decoder
    try:
        args, kwargs = (unseal(settings.codec, raw, settings.max_payload) for raw in (job.args, job.kwargs))
        plain = decoder(list[object])(args), decoder(dict[str, object])(kwargs)
        return plain if parameters is None else parameters.shown(*plain)
    except Exception as error:  # noqa: BLE001 - whatever the bytes are
        raise wire.Unreadable(f"its arguments: {type(error).__name__}: {error}"[:500]) from None


def _reason(found: Found, job: JobBody | None) -> str:
    if found.where == "parked":
        name = f" {job.task!r}" if job else ""
        return f"no worker that looked at it knows the task{name}; it is offered again until one does, for an hour"
    return found.cancelling or ""


def _finished(found: Found, record: Record) -> JobInfo:
    options = read_options(record.options)
    return JobInfo(
        id=found.job_id,
        queue=found.queue,
        task=record.task,
        state=record.state,
        priority=record.priority,
        attempts=record.attempts,
        retries=record.retries,
        enqueued_at=date(record.enqueued_at),
        eta=date(options.eta),
        due=None,
        expires=date(options.expires),
        started_at=date(record.started_at),
        finished_at=date(record.finished_at),
        wait=_between(record.enqueued_at, record.started_at),
        run=_between(record.started_at, record.finished_at),
        worker=record.worker,
        reason=record.reason,
        progress=found.progress,
        cancelling=False,
        error=record.error,
        failures=record.failures,
        headers=options.headers,
    )


def cancelled(body: bytes | None, priority: int, settings: AppOptions, reason: str, now: int) -> tuple[Record, int]:
    """The record of a job that is cancelled before a worker takes it, and the ms it is to be kept."""
    job, options = read_job(body, settings.max_payload)
    record = Record(
        version=RECORD_VERSION,
        state=State.CANCELLED,
        task=job.task if job else "",
        result=NIL,
        error=None,
        reason=reason,
        enqueued_at=job.enqueued_at if job else 0,
        started_at=job.started_at if job else 0,
        finished_at=now,
        worker="",
        attempts=job.retries if job else 0,
        retries=job.retries if job else 0,
        failures=job.failures if job else [],
        priority=priority,
        options=job.options if job else NO_OPTIONS,
    )
    return record, settings.result_ttl if options.result_ttl is None else options.result_ttl


def date(ms: int) -> datetime | None:
    """Epoch ms as a date; 0 is none."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


def _between(start: int, end: int) -> float | None:
    return max(0, end - start) / 1000 if start and end else None
