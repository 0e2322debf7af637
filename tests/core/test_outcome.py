"""The table of what must be done about what happened, row by row."""

from __future__ import annotations

import pytest
from msgspec import Raw

from streamq.core.job import Failure, JobBody, Reason, State
from streamq.core.options import TaskOptions
from streamq.core.outcome import (
    UNKNOWN_TASK_PATIENCE_MS,
    Attempt,
    Bury,
    Cancelled,
    Complete,
    Crashed,
    Drop,
    Expired,
    Failed,
    Interrupted,
    Lost,
    Rejected,
    Release,
    Reschedule,
    Retry,
    Snoozed,
    Succeeded,
    Unreadable,
    Unregistered,
    decide,
)
from streamq.core.retry import RetryPolicy

NOW = 1_700_000_000_000
FAILURE = Failure("ValueError", "no", "", NOW, 1, "w")


def attempt(
    policy: RetryPolicy | None = None, *, retries: int = 0, parked_at: int = 0, job: bool = True, **options: bool
) -> Attempt:
    policy = policy or RetryPolicy()
    body = JobBody(1, "t", Raw(b"\x90"), NOW - 50, Raw(b"\x80"), Raw(b"\x80"), retries, [], 0, parked_at)
    settings = TaskOptions(retry=policy, **options)
    return Attempt(body if job else None, settings, policy.max_retries, 1000, NOW - 9, NOW, "w", 1)


LISTED = RetryPolicy(max_retries=2, autoretry_for=(ValueError,), default_delay=5)


def test_success_is_recorded() -> None:
    done = decide(Succeeded(Raw(b"\x07")), attempt())
    assert isinstance(done, Complete)
    assert (done.record.state, bytes(done.record.result), done.ttl) == (State.SUCCESS, b"\x07", 1000)
    assert (done.record.started_at, done.record.finished_at, done.record.worker) == (NOW - 9, NOW, "w")


def test_an_unlisted_failure_is_buried_at_once() -> None:
    done = decide(Failed(FAILURE, ValueError("no")), attempt())
    assert isinstance(done, Bury)
    assert (done.reason, done.record.state, done.record.failures) == (Reason.FAILED, State.FAILURE, [FAILURE])


def test_a_listed_failure_is_tried_again() -> None:
    done = decide(Failed(FAILURE, ValueError("no")), attempt(LISTED))
    assert isinstance(done, Reschedule)
    assert (done.state, done.delay, done.job.retries, done.job.failures) == (State.RETRY, 5000, 1, [FAILURE])


def test_the_last_retry_is_the_last() -> None:
    done = decide(Failed(FAILURE, ValueError("no")), attempt(LISTED, retries=2))
    assert isinstance(done, Bury)
    assert done.reason is Reason.EXHAUSTED


def test_asking_for_a_retry_needs_no_listing_and_its_countdown_counts() -> None:
    done = decide(Failed(FAILURE, Retry(countdown=7)), attempt())
    assert isinstance(done, Reschedule)
    assert (done.delay, done.job.retries) == (7000, 1)


def test_a_retry_can_bring_its_own_limit() -> None:
    assert isinstance(decide(Failed(FAILURE, Retry(max_retries=9)), attempt(retries=8)), Reschedule)
    assert isinstance(decide(Failed(FAILURE, Retry(max_retries=1)), attempt(retries=1)), Bury)


def test_without_acks_on_failure_the_entry_comes_again_and_counts() -> None:
    done = decide(Failed(FAILURE, ValueError("no")), attempt(acks_on_failure=False))
    assert done == Release(forgive=False)


def test_a_snooze_spends_nothing() -> None:
    done = decide(Snoozed(1.5), attempt(retries=1))
    assert isinstance(done, Reschedule)
    assert (done.state, done.delay, done.job.retries, done.job.failures) == (State.SCHEDULED, 1500, 1, [])


def test_a_rejected_job_is_buried_whatever_the_policy() -> None:
    done = decide(Rejected(FAILURE), attempt(LISTED))
    assert isinstance(done, Bury)
    assert done.reason is Reason.REJECTED


def test_cancelled_and_expired_are_final_states() -> None:
    cancelled, expired = decide(Cancelled("why"), attempt()), decide(Expired(), attempt())
    assert isinstance(cancelled, Complete)
    assert isinstance(expired, Complete)
    assert (cancelled.record.state, cancelled.record.reason) == (State.CANCELLED, "why")
    assert expired.record.state is State.EXPIRED


def test_an_interrupted_job_is_given_back_and_forgiven() -> None:
    assert decide(Interrupted(), attempt()) == Release(forgive=True)


def test_who_lost_the_lease_says_nothing() -> None:
    assert decide(Lost(), attempt()) == Drop()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Crashed(4), Reason.CRASHED), (Unreadable("odd"), Reason.UNREADABLE)],
)
def test_what_was_never_decoded_is_buried_without_its_job(outcome: Crashed | Unreadable, reason: Reason) -> None:
    done = decide(outcome, attempt(job=False))
    assert isinstance(done, Bury)
    assert (done.reason, done.job, done.record.task) == (reason, None, "")


def test_an_unknown_task_is_parked_for_an_hour_with_growing_waits() -> None:
    first = decide(Unregistered("t"), attempt())
    assert isinstance(first, Reschedule)
    assert (first.state, first.delay, first.job.parked_at) == (State.PENDING, 1_000, NOW)
    later = decide(Unregistered("t"), attempt(parked_at=NOW - 100_000))
    assert isinstance(later, Reschedule)
    assert (later.delay, later.job.parked_at) == (10_000, NOW - 100_000)
    last = decide(Unregistered("t"), attempt(parked_at=NOW - UNKNOWN_TASK_PATIENCE_MS))
    assert isinstance(last, Bury)
    assert last.reason is Reason.UNKNOWN
