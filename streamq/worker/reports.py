"""What is said when an attempt has been settled: an event to those who listen, one line in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from streamq.broker.wire import Unreadable
from streamq.client.hooks import Event, Events
from streamq.client.info import arguments_of
from streamq.client.signature import Parameters
from streamq.core.job import Failure, Reason, State
from streamq.core.limits import WARN_PAYLOAD
from streamq.core.options import AppOptions
from streamq.core.outcome import Bury, Complete, Drop, Release, Reschedule, Settlement
from streamq.worker.held import Holding
from streamq.worker.log import job_ended, jobs, state_of

MAX_SHOWN: Final = 500  # characters of arguments in a log line
_OF_STATE: Final = {
    State.SUCCESS: "job.succeeded",
    State.FAILURE: "job.failed",
    State.CANCELLED: "job.cancelled",
    State.EXPIRED: "job.expired",
    State.RETRY: "job.retrying",
    State.SCHEDULED: "job.snoozed",
}
_ALL: Final = (*_OF_STATE.values(), "job.exhausted", "job.dead", "job.released")


def names_of(settlement: Settlement) -> tuple[str, ...]:
    """The events of one settlement, in their order."""
    match settlement:
        case Bury(_, _, Reason.EXHAUSTED):
            return "job.exhausted", "job.failed", "job.dead"
        case Bury():
            return "job.failed", "job.dead"
        case Complete(record):
            return (_OF_STATE[record.state],) if record.state in _OF_STATE else ()
        case Reschedule(_, _, state):
            return (_OF_STATE[state],) if state in _OF_STATE else ()
        case Release():
            return ("job.released",)
        case Drop():
            return ("job.lost",)


class Counts(Protocol):
    """Who counts the attempts that end in this process."""

    def ended(self, queue: str, state: str, ms: float | None) -> None:
        """One attempt is over; it ran for `ms`, None if it never began."""
        ...

    def batch_ended(self) -> None:
        """All attempts of one turn have been told."""
        ...


class Reports:
    """Asks once a batch whether anybody listens at all."""

    tally: Counts | None = None

    def __init__(self, events: Events, worker: str, settings: AppOptions, log_args: Mapping[str, Parameters]) -> None:
        self._events = events
        self._worker = worker
        self._settings = settings
        self._log_args = log_args

    @property
    def wanted(self) -> bool:
        """Whether anybody would notice."""
        counted = self.tally is not None
        return counted or jobs.isEnabledFor(logging.INFO) or any(self._events.wants(name) for name in _ALL)

    def settled(self, holding: Holding, settlement: Settlement, now: int) -> None:
        """One attempt is over and Redis knows. `now` is epoch ms."""
        task = "" if holding.job is None else holding.job.task
        spent = max(0, now - holding.started_at) if holding.started_at else 0
        if self.tally is not None:
            self.tally.ended(holding.delivery.queue, state_of(settlement), spent if holding.started_at else None)
        if jobs.isEnabledFor(logging.INFO):
            job_ended(holding.delivery, task, holding.attempt, settlement, spent, self._arguments(holding, task))
        for name in names_of(settlement):
            if self._events.wants(name):
                self._events.emit(self._event(name, holding, settlement, task, spent, now))

    def lost(self, holding: Holding, now: int) -> None:
        """The lease went before the attempt could be recorded."""
        if self.tally is not None:
            self.tally.ended(holding.delivery.queue, state_of(Drop()), None)
        if self._events.wants("job.lost"):
            task = "" if holding.job is None else holding.job.task
            self._events.emit(self._event("job.lost", holding, Drop(), task, 0, now))

    def batch_ended(self) -> None:
        """All of one turn, or one job that was acknowledged early, has been told."""
        if self.tally is not None:
            self.tally.batch_ended()

    def _arguments(self, holding: Holding, task: str) -> str:
        if task not in self._log_args or holding.job is None:
            return ""
        if (size := len(holding.job.args) + len(holding.job.kwargs)) > WARN_PAYLOAD:  # made into objects it is far more
            return f"({size:,} bytes)"
        try:
            args, named = arguments_of(holding.job, self._settings, self._log_args[task])
            shown = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in named.items())])
        except Unreadable as error:  # the bytes stay out of the log: there may be a secret among them
            shown = f"? {error}"
        return f"({shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + '…'})"

    def _event(self, name: str, holding: Holding, settlement: Settlement, task: str, spent: int, now: int) -> Event:
        delivery, reason, delay = holding.delivery, "", 0.0
        error: Failure | None = None
        state: State | None = None
        match settlement:
            case Complete(record) | Bury(record):
                error, reason, state = record.error, record.reason, record.state
            case Reschedule(job, ms):
                state = settlement.state
                error = job.failures[-1] if job.failures and state is State.RETRY else None
                delay = ms / 1000
            case _:
                pass
        return Event(
            name=name,
            job_id=delivery.job_id,
            task=task,
            queue=delivery.queue,
            attempt=holding.attempt,
            at=now,
            state=state,
            error="" if error is None else f"{error.error}: {error.message}",
            reason=reason,
            duration=spent / 1000,
            delay=delay,
            worker=self._worker,
            traceback="" if error is None else error.traceback,
        )
