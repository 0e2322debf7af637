"""The sentences of a timeline: what each transition of a job means, told in their order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streamq.broker.history import Transition, TransitionKind
from streamq.core.clock import ago
from streamq.core.job import Failure, Reason
from streamq.core.shown import one_line, short

STARTS: Final = frozenset({TransitionKind.STARTED, TransitionKind.TAKEN_OVER})
_LONGEST: Final = 200  # characters of an error or a reason in a sentence
_REASONS: Final[dict[str, str]] = {
    Reason.FAILED: "an error that is not retried",
    Reason.EXHAUSTED: "no retry is left",
    Reason.REJECTED: "the task rejected it",
    Reason.BAD_SIGNATURE: "its signature is missing or wrong",
    Reason.UNDECODABLE: "its arguments cannot be decoded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened to a job. `at` is aware and UTC, `why` a plain sentence.

    `what` is a `TransitionKind` or "enqueued". `attempt` counts as `ctx.attempt` does; `fence` is the delivery count
    that the worker held, which Redis asks for when it settles. 0 and "" where there is none, or where the history does
    not know it.
    """

    at: datetime
    what: str
    worker: str = ""
    attempt: int = 0
    fence: int = 0
    why: str = ""


class Teller:
    """Makes the steps of one job, transition by transition, the oldest first.

    `since` is when it was enqueued (epoch ms, 0: unknown), `retries` how many were spent before the first transition.
    Starts are `numbered` where all of them are known. `reason` says why it was cancelled or became a dead letter.
    """

    def __init__(self, since: int, retries: int, *, numbered: bool, reason: str = "") -> None:
        self.starts = 0
        self._ready = since
        self._retries = retries
        self._forgiven = 0
        self._numbered = numbered
        self._reason = reason
        self._cause = ""  # of the next start
        self._holder = ""
        self._held = 0  # epoch ms since when

    def step(self, told: Transition, failure: Failure | None, *, last: bool) -> Step:
        """The next one. `failure` is the error of the attempt that ended here, `last` whether it is the newest end."""
        if told.kind is TransitionKind.STARTED:
            self._forgiven = 0  # a new entry, whose deliveries are counted anew
        attempt = told.fence - self._forgiven + self._retries if told.fence else 0
        why = self._why(told, failure, last)
        return Step(
            at=date(told.at), what=told.kind.value, worker=told.worker, attempt=attempt, fence=told.fence, why=why
        )

    def _why(self, told: Transition, failure: Failure | None, last: bool) -> str:
        match told.kind:
            case TransitionKind.STARTED | TransitionKind.TAKEN_OVER:
                return self._begun(told)
            case TransitionKind.RETRYING | TransitionKind.SNOOZED | TransitionKind.PARKED:
                return self._put_off(told, failure)
            case TransitionKind.RELEASED:
                return self._given_back(told)
            case TransitionKind.REFUSED | TransitionKind.LATE:
                return self._denied(told)
            case TransitionKind.DUE:
                self._ready = told.at
                return "due now"
            case TransitionKind.HASTENED:
                return "somebody asked for it to run now"
            case TransitionKind.CANCELLING:
                return _because(f"somebody cancels it, and {self._holder or 'its worker'} was told", told.detail)
            case TransitionKind.ACKNOWLEDGED:
                return f"before it ran (acks_early): if {told.worker} dies now, it does not run again"
            case TransitionKind.REVIVED:
                self._over(told.at, "it was a dead letter, and somebody retried it")
                return "somebody retried the dead letter: it begins anew, with all its retries"
            case _:
                return self._ended(told, failure, last)

    def _begun(self, told: Transition) -> str:
        self.starts += 1
        before, worker, cause = self._holder, told.worker, self._cause
        self._holder, self._held, self._cause = worker, told.at, ""
        number = f", start {self.starts}" if self._numbered and self.starts > 1 else ""
        if told.kind is TransitionKind.STARTED:
            waited = f" after {ago((told.at - self._ready) / 1000)}" if self._ready else ""
            return f"{worker} took it{waited}{number}" + (f": {cause}" if cause else "")
        if not told.seconds:
            return f"{before or 'a worker'} had given it back, {worker} took it{number}"
        if before == worker:
            return f"{worker} did not renew its lease for {ago(told.seconds)}, and took the job again itself{number}"
        owner = before or "whoever had it"
        return f"{owner} did not renew its lease for {ago(told.seconds)}: {worker} took it over{number}"

    def _put_off(self, told: Transition, failure: Failure | None) -> str:
        self._ready, self._holder, self._forgiven = told.at, "", 0
        later = f"in {ago(told.seconds)}" if told.seconds else "at once"
        if told.kind is TransitionKind.SNOOZED:
            self._cause = "it had asked for that"
            return f"the task asked to run again {later}; that spends no retry"
        if told.kind is TransitionKind.PARKED:
            return f"{told.worker} does not know the task; it is offered again {later}"
        self._retries += 1
        error = said(failure) if failure else "the attempt failed"
        self._cause = f"the retry after {failure.error}" if failure else "a retry"
        return f"{error}; retried {later}"

    def _given_back(self, told: Transition) -> str:
        self._ready = told.at
        match told.detail:
            case "unstarted":
                self._forgiven += 1
                self._holder = told.worker
                return f"{told.worker} shut down, and gave it back before it started"
            case "forgiven":
                self._forgiven += 1
                return f"{told.worker} gave it back: it shut down, or the queue was paused; this start does not count"
            case _:
                return f"{told.worker} gave it back after it failed (acks_on_failure=False)"

    def _denied(self, told: Transition) -> str:
        if told.kind is TransitionKind.LATE:
            return f"its outcome ({told.detail}) came after the job had ended: nothing of it was recorded"
        if self._holder == told.worker:
            rival = f"{told.worker} itself has taken the job again since"
        else:
            rival = f"{self._holder or 'another worker'} has the job"
        return (
            f"its late outcome ({told.detail}) was refused: {rival}. Nothing of it was recorded, but what it did "
            "outside Redis stays done"
        )

    def _ended(self, told: Transition, failure: Failure | None, last: bool) -> str:
        spent = f" after {ago((told.at - self._held) / 1000)}" if self._holder and self._holder == told.worker else ""
        worker, reason = told.worker, self._reason if last else ""
        self._over(told.at, "")
        match told.kind:
            case TransitionKind.SUCCEEDED:
                return f"{worker} finished it{spent}"
            case TransitionKind.FAILED:
                return buried(failure, reason)
            case TransitionKind.EXPIRED:
                return "its `expires` had passed before it could start"
            case _ if worker:
                return _because(f"{worker} stopped it{spent}", told.detail or reason)
            case _:
                return _because("it was waiting, and somebody cancelled it", told.detail or reason)

    def _over(self, at: int, cause: str) -> None:
        self._ready, self._cause, self._holder = at, cause, ""
        self._retries = self._forgiven = 0


def buried(failure: Failure | None, reason: str) -> str:
    """Why a job became a dead letter."""
    parts = [said(failure) if failure else "", _REASONS.get(reason, "")]
    return "; ".join([*filter(None, parts), "it became a dead letter"])


def said(failure: Failure) -> str:
    """An error in one line."""
    return _quoted(f"{failure.error}: {failure.message}".rstrip(": "))


def _because(what: str, reason: str) -> str:
    return f"{what}: {_quoted(reason)}" if reason else what


def _quoted(text: str) -> str:
    return short(one_line(text), _LONGEST)


def date(ms: int) -> datetime:
    """Epoch ms as a date."""
    return datetime.fromtimestamp(ms / 1000, UTC)
