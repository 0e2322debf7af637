"""What happened to an attempt (`Outcome`), what Redis must do about it (`Settlement`), and the table between.

Past participles happened, imperatives are to be done. `decide` is pure: every row of it is a test without Redis.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from streamq.core.clock import Duration, seconds
from streamq.core.job import NO_OPTIONS, Failure, JobBody, Reason, Record, State
from streamq.core.limits import MAX_ERRORS
from streamq.core.options import TaskOptions

NIL: Final = Raw(b"\xc0")
RECORD_VERSION: Final = 1
UNKNOWN_TASK_PATIENCE_MS: Final = 3_600_000  # a rolling deploy ends within the hour; a typo does not mend itself


class Signal(Exception):
    """The root of `Retry`, `Snooze` and `Reject`."""


class Retry(Signal):
    """Raise it to end this attempt and run the job again later; it spends one retry.

    `countdown` is seconds, a timedelta or "5s"; without it the task's backoff decides.

        raise Retry(countdown=5)
    """

    def __init__(self, countdown: Duration | None = None, *, reason: str = "", max_retries: int | None = None) -> None:
        self.countdown = None if countdown is None else seconds(countdown, name="countdown")
        self.reason = reason
        self.max_retries = max_retries
        super().__init__(reason or "the task asked for a retry")


class Snooze(Signal):
    """Raise it to run the job again after `delay` without spending a retry or an attempt.

    raise Snooze("10m")
    """

    def __init__(self, delay: Duration) -> None:
        self.delay = seconds(delay, name="delay")
        super().__init__(f"snoozed for {self.delay:g} s")


class Reject(Signal):
    """Raise it to give up: FAILURE at once, without retries, and a dead letter with this reason.

    raise Reject("the address does not exist")
    """

    def __init__(self, reason: str = "rejected by the task") -> None:
        self.reason = reason
        super().__init__(reason)


# ---- outcomes: what happened ---------------------------------------------------------------------------


class Succeeded(Struct, frozen=True, gc=False):
    """The task returned; `result` is its encoded value."""

    result: Raw


class Failed(Struct, frozen=True):
    """The task raised. `failure` is the exception as it will be stored, `exc` the live one for the policy."""

    failure: Failure
    exc: BaseException


class Snoozed(Struct, frozen=True):
    """The task asked to be run later."""

    delay: float


class Rejected(Struct, frozen=True):
    """The task gave up."""

    failure: Failure


class Cancelled(Struct, frozen=True):
    """Somebody cancelled the running job."""

    reason: str


class Expired(Struct, frozen=True):
    """`expires` passed before the job could start."""


class Interrupted(Struct, frozen=True):
    """The worker is shutting down: the attempt does not count."""


class Lost(Struct, frozen=True):
    """The lease is gone: this attempt may say nothing."""


class Crashed(Struct, frozen=True):
    """More deliveries than `max_crashes` allows ended without a report. Never decoded, never started."""

    crashes: int


class Unreadable(Struct, frozen=True):
    """The entry cannot be decoded."""

    reason: str


class Refused(Struct, frozen=True):
    """The job must not run here, whatever it is: it is forged, or nobody can open it. `error` names the kind."""

    reason: Reason
    error: str
    message: str


def forged(problem: Exception) -> Refused:
    """Its signature is missing or wrong."""
    return Refused(Reason.BAD_SIGNATURE, "streamq.BadSignature", str(problem))


def undecodable(problem: Exception | str) -> Refused:
    """The codec could not decode its arguments, or there is none; or this worker does not take their serializer."""
    return Refused(Reason.UNDECODABLE, "streamq.Undecodable", str(problem))


class Unregistered(Struct, frozen=True):
    """This worker knows no task of that name."""

    task: str


Outcome = (
    Succeeded
    | Failed
    | Snoozed
    | Rejected
    | Cancelled
    | Expired
    | Interrupted
    | Lost
    | Crashed
    | Unreadable
    | Refused
    | Unregistered
)


# ---- settlements: what Redis must do ---------------------------------------------------------------------


class Complete(Struct, frozen=True, gc=False):
    """Record the final state, acknowledge, delete. `ttl` ms of 0 keeps no record."""

    record: Record
    ttl: int


class Reschedule(Struct, frozen=True):
    """Acknowledge, and put `job` among the delayed ones for `delay` ms. `state` is RETRY, SCHEDULED, or PENDING
    when the task is unknown here."""

    job: JobBody
    delay: int
    state: State


class Bury(Struct, frozen=True):
    """As Complete, and keep a dead letter. `job` is None when the entry could not or must not be decoded."""

    record: Record
    ttl: int
    reason: Reason
    job: JobBody | None


class Release(Struct, frozen=True):
    """Give the entry back at once to whoever sweeps next; `forgive` keeps its crash count as it was."""

    forgive: bool = True


class Drop(Struct, frozen=True):
    """Say nothing: the entry is no longer ours."""


Settlement = Complete | Reschedule | Bury | Release | Drop


class Attempt(Struct, frozen=True, gc=False):
    """What `decide` needs to know besides the outcome. Times are epoch ms of the server."""

    job: JobBody | None
    options: TaskOptions
    max_retries: int
    ttl: int  # of the record, ms; 0: none is kept
    started_at: int
    now: int
    worker: str
    count: int  # deliveries so far, forgiven ones left out
    priority: int = 0
    early: bool = False  # it was acknowledged before it ran


def decide(outcome: Outcome, attempt: Attempt) -> Settlement:
    """Turn what happened into what must be done."""
    match outcome:
        case Succeeded(result):
            return Complete(_record(State.SUCCESS, attempt, result=result), attempt.ttl)
        case Failed(failure, exc):
            return _after_failure(failure, exc, attempt)
        case Snoozed(delay):
            return Reschedule(_again(attempt), round(delay * 1000), State.SCHEDULED)
        case Rejected(failure):
            return _bury(attempt, Reason.REJECTED, failure)
        case Cancelled(reason):
            return Complete(_record(State.CANCELLED, attempt, reason=reason), attempt.ttl)
        case Expired():
            return Complete(_record(State.EXPIRED, attempt, reason="expired before it could start"), attempt.ttl)
        case Interrupted() if attempt.early:
            reason = "the worker shut down; acknowledged early, it starts once at most"
            return Complete(_record(State.CANCELLED, attempt, reason=reason), attempt.ttl)
        case Interrupted():
            return Release()
        case Lost():
            return Drop()
        case Crashed(crashes):
            attempt = replace(attempt, count=crashes)  # this one was never started
            message = f"{crashes} deliveries ended without a report: the worker process died or lost its lease"
            return _bury(attempt, Reason.CRASHED, _failure("streamq.Crashed", message, attempt))
        case Unreadable(reason):
            return _bury(attempt, Reason.UNREADABLE, _failure("streamq.Unreadable", reason, attempt))
        case Refused(reason, error, message):
            record = _record(State.FAILURE, attempt, error=_failure(error, message, attempt), reason=reason.value)
            return Bury(record, attempt.ttl, reason, None)  # the dead letter has its bytes as they came
        case Unregistered(task):
            return _park_or_bury(task, attempt)


def _after_failure(failure: Failure, exc: BaseException, attempt: Attempt) -> Settlement:
    policy = attempt.options.retry
    asked = isinstance(exc, Retry)
    if not asked and not policy.wants(exc):
        if not attempt.options.acks_on_failure:
            return Release(forgive=False)
        return _bury(attempt, Reason.FAILED, failure)
    job = attempt.job
    assert job is not None
    limit = exc.max_retries if isinstance(exc, Retry) and exc.max_retries is not None else attempt.max_retries
    if job.retries >= limit:
        return _bury(attempt, Reason.EXHAUSTED, failure)
    countdown = exc.countdown if isinstance(exc, Retry) else None
    delay = policy.delay(job.retries, exc) if countdown is None else countdown
    again = _again(attempt, failure)
    again.retries += 1
    return Reschedule(again, round(delay * 1000), State.RETRY)


def _park_or_bury(task: str, attempt: Attempt) -> Settlement:
    job = attempt.job
    assert job is not None
    since = job.parked_at or attempt.now
    if attempt.now - since >= UNKNOWN_TASK_PATIENCE_MS:
        message = f"no worker of this queue has registered the task {task!r} for an hour"
        return _bury(attempt, Reason.UNKNOWN, _failure("streamq.UnknownTask", message, attempt))
    again = _again(attempt, keep_start=True)
    again.parked_at = since
    # 1 s at first, later a tenth of the time waited, at most a minute: a deploy is noticed soon, a typo is cheap.
    return Reschedule(again, min(60_000, max(1_000, (attempt.now - since) // 10)), State.PENDING)


def _again(attempt: Attempt, failure: Failure | None = None, *, keep_start: bool = False) -> JobBody:
    job = attempt.job
    assert job is not None
    failures = job.failures if failure is None else [*job.failures, failure][-MAX_ERRORS:]
    return JobBody(
        job.version,
        job.task,
        job.args,
        job.enqueued_at,
        job.kwargs,
        job.options,
        job.retries,
        failures,
        job.started_at if keep_start else job.started_at or attempt.started_at,
        0,
    )


def _bury(attempt: Attempt, reason: Reason, failure: Failure) -> Bury:
    record = _record(State.FAILURE, attempt, error=failure, reason=reason.value)
    return Bury(record, attempt.ttl, reason, attempt.job)


def _failure(error: str, message: str, attempt: Attempt) -> Failure:
    return Failure(error, message, "", attempt.now, attempt.count, attempt.worker)


def _record(
    state: State, attempt: Attempt, *, result: Raw = NIL, error: Failure | None = None, reason: str = ""
) -> Record:
    job = attempt.job
    failures = [] if job is None else job.failures
    return Record(
        RECORD_VERSION,
        state,
        "" if job is None else job.task,
        result,
        error,
        reason,
        0 if job is None else job.enqueued_at,
        attempt.started_at,
        attempt.now,
        attempt.worker,
        attempt.count + (0 if job is None else job.retries),
        0 if job is None else job.retries,
        failures if error is None else [*failures, error][-MAX_ERRORS:],
        attempt.priority,
        NO_OPTIONS if job is None else job.options,
    )
