"""A dead letter outlives the record of its job: what it still says of that."""

from __future__ import annotations

from streamq.broker import wire
from streamq.core.job import NO_OPTIONS, DeadLetter, Record, State
from streamq.core.outcome import NIL, RECORD_VERSION


def record_of(letter: DeadLetter, max_payload: int) -> Record:
    """The record as far as the letter knows it; when the last attempt began it does not."""
    try:
        job = wire.decode_job(letter.body, max_payload)
    except wire.Unreadable:
        job = None
    last = letter.failures[-1] if letter.failures else None
    return Record(
        version=RECORD_VERSION,
        state=State.FAILURE,
        task=letter.task,
        result=NIL,
        error=last,
        reason=letter.reason.value,
        enqueued_at=job.enqueued_at if job else 0,
        started_at=0,
        finished_at=letter.at,
        worker=last.worker if last else "",
        attempts=letter.attempts,
        retries=job.retries if job else 0,
        failures=letter.failures,
        priority=letter.priority,
        options=job.options if job else NO_OPTIONS,
    )
