"""All that happened to one job, in its order, and why each of it: the answer to "it was done twice, how come?"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from streamq.broker.broker import Broker, Found
from streamq.broker.history import ENDED, ENDS, History, Reach, Transition, TransitionKind
from streamq.client.info import read_job, read_options, state_of
from streamq.client.link import Link, not_found
from streamq.client.story import STARTS, Step, Teller, buried, date, said
from streamq.core.job import NO_OPTIONS, DeadLetter, Failure, Reason, Record, State
from streamq.errors import JobNotFound

_TOLERANCE: Final = 5_000  # ms that a worker's idea of the server's time may be wrong, generously
_CRON: Final = re.compile(r"cron-(.+)-\d{10,15}")
_NEVER_STARTED: Final = frozenset(
    each.value for each in (Reason.CRASHED, Reason.UNREADABLE, Reason.UNKNOWN, Reason.BAD_SIGNATURE, Reason.UNDECODABLE)
)
_EARLY: Final = timedelta(seconds=1)  # what a producer thinks of the server's time may be wrong
_TWICE: Final = (
    "a worker took it {} times: what the task does outside Redis before it ends, as sending an e-mail, it may have "
    "done each time"
)
_ONCE: Final = (
    "a worker took it once. If its work was done twice, it was enqueued twice: the other job has an id, and a "
    "timeline, of its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The life of one job. `starts` is how often a worker took it; `notes` say what the steps cannot.

    `state` is None if nothing is known of the job any more but its history.
    """

    id: str
    queue: str
    task: str
    state: State | None
    starts: int
    steps: list[Step]
    notes: list[str]


class _Known:
    """What is known of a job beside its history: its record, what waits or runs of it, its dead letter."""

    def __init__(self, found: Found, letter: DeadLetter | None, max_payload: int) -> None:
        self.found = found
        self.record = record = found.record
        self.letter = letter if found.where == "gone" and record is None else None
        body = self.letter.body if self.letter else found.body
        self.job, _ = read_job(body, max_payload)
        best = record or self.job
        self.eta = read_options(best.options if best else NO_OPTIONS).eta
        self.enqueued_at = best.enqueued_at if best else 0
        self.retries = best.retries if best else 0
        self.failures: list[Failure] = self.letter.failures if self.letter else best.failures if best else []
        self.task = best.task if best else self.letter.task if self.letter else ""
        self.reason = record.reason if record else self.letter.reason.value if self.letter else ""

    def state(self, told: Sequence[Transition]) -> State | None:
        """None if nothing is known that says so."""
        if self.record is not None or self.found.where != "gone":
            return state_of(self.found)
        if self.letter is not None:
            return State.FAILURE
        ends = [each.kind for each in told if each.kind in ENDS]
        return ENDS[ends[-1]] if ends else None

    def end(self) -> Step | None:
        """How it ended, as its record or its dead letter says."""
        failure = self.failures[-1] if self.failures else None
        if self.letter is not None:
            why = buried(failure, self.reason)
            return Step(at=date(self.letter.at), what=TransitionKind.FAILED, attempt=self.letter.attempts, why=why)
        record = self.record
        if record is None or not record.state.final:
            return None
        kind = ENDED[record.state]
        why = (
            buried(failure, self.reason)
            if kind is TransitionKind.FAILED
            else self.reason or f"{record.worker} ended it"
        )
        return Step(at=date(record.finished_at), what=kind, worker=record.worker, attempt=record.attempts, why=why)

    def start(self) -> Step | None:
        """The start of its last attempt, as its record says."""
        record = self.record
        if record is None or not record.worker or not record.started_at or record.state is State.EXPIRED:
            return None
        if self.reason in _NEVER_STARTED:
            return None
        why = f"{record.worker} ran it"
        at = date(record.started_at)
        return Step(at=at, what=TransitionKind.STARTED, worker=record.worker, attempt=record.attempts, why=why)


async def timeline(link: Link, job_id: str, queue: str = "") -> Timeline:
    """The timeline of one job, found in any queue if none is named. Raises `JobNotFound`."""
    broker = await link.open()
    history = History(broker)
    for name in [queue] if queue else await _candidates(link, broker, job_id):
        known = _Known(await broker.find(name, job_id), await broker.dead_one(name, job_id), link.options.max_payload)
        told = _once(await history.of_job(name, job_id))
        if told or known.state(told) is not None:
            return _merged(job_id, name, known, told, await history.reach(name))
    raise not_found(job_id, f"queue {queue!r}" if queue else "any queue")


async def _candidates(link: Link, broker: Broker, job_id: str) -> list[str]:
    """The queue that has the job; once its record has expired, those that may remember it."""
    try:
        return [await link.locate(job_id)]
    except JobNotFound:
        return list(dict.fromkeys([*link.known.queues(), *await broker.queues()]))


def _merged(job_id: str, queue: str, known: _Known, told: list[Transition], reach: Reach) -> Timeline:
    begin = _last_life(told)
    told = [*told[:begin], *_when(told[begin:], known.record)]
    life = told[begin:]
    errors, unmatched = _matched(life, known.failures)
    spent = 0 if begin else max(0, known.retries - sum(each.kind is TransitionKind.RETRYING for each in life))
    whole = _whole(reach, known.enqueued_at)
    teller = Teller(known.enqueued_at, spent, numbered=whole, reason=known.reason)
    steps = [teller.step(each, errors.get(n - begin), last=n >= begin) for n, each in enumerate(told)]
    beside = list(_beside(known, life, unmatched))
    for each in beside:
        _insert(steps, each)
    if known.enqueued_at:
        _insert(steps, _enqueued(job_id, queue, known), _EARLY)
    starts = sum(each.what in STARTS for each in steps)
    if whole:  # a worker that is killed at once has told of no start, but the fence counts it
        starts = max([starts, *(each.attempt for each in steps)])
    early = any(each.kind is TransitionKind.ACKNOWLEDGED for each in life)
    return Timeline(
        id=job_id,
        queue=queue,
        task=known.task,
        state=known.state(told),
        starts=starts,
        steps=steps,
        notes=[
            *_about_history(known, reach, bool(beside) and not early),
            *_about_starts(starts, whole, known, told),
        ],
    )


def _when(life: list[Transition], record: Record | None) -> list[Transition]:
    """The start of the last attempt when it was: a worker tells it in its next turn, which a blocked loop holds up."""
    last = max((n for n, each in enumerate(life) if each.kind in STARTS), default=None)
    if last is None or record is None or not record.started_at or record.worker != life[last].worker:
        return life
    at = min(life[last].at, max(record.started_at, *(each.at for each in life[:last]), 0))
    return [*life[:last], replace(life[last], at=at), *life[last + 1 :]]


def _once(told: Iterable[Transition]) -> list[Transition]:
    """A turn of which all was refused is answered anew, and told anew, when it is sent again."""
    found: list[Transition] = []
    for each in told:
        again = each.kind in (TransitionKind.REFUSED, TransitionKind.LATE) and found
        if not again or replace(found[-1], at=each.at) != each:
            found.append(each)
    return found


def _last_life(told: Sequence[Transition]) -> int:
    """Where the newest life begins: a dead letter is retried, an id is used again once its record has expired."""
    begin, ended = 0, False
    for n, each in enumerate(told):
        if each.kind is TransitionKind.REVIVED or (ended and each.kind in (TransitionKind.STARTED, TransitionKind.DUE)):
            begin, ended = n, False
        ended = ended or each.kind in ENDS
    return begin


def _matched(life: Sequence[Transition], failures: Sequence[Failure]) -> tuple[dict[int, Failure], list[Failure]]:
    """Which transition recorded which failed attempt, the newest first, for the oldest may be missing; and the rest."""
    matched: dict[int, Failure] = {}
    unmatched: list[Failure] = []
    places = [n for n, each in enumerate(life) if each.kind in (TransitionKind.RETRYING, TransitionKind.FAILED)]
    for failure in reversed(failures):
        if places and life[places[-1]].at >= failure.at - _TOLERANCE:
            matched[places.pop()] = failure
        else:
            unmatched.append(failure)
    return matched, unmatched


def _beside(known: _Known, life: Sequence[Transition], unmatched: Sequence[Failure]) -> Iterator[Step]:
    """What the history does not tell, and the job itself knows."""
    end = None if any(each.kind in ENDS for each in life) else known.end()
    failed = end is not None and end.what == TransitionKind.FAILED
    for failure in unmatched:
        if not (failed and failure is known.failures[-1]):
            why = f"{said(failure)}; retried"
            what = TransitionKind.RETRYING
            yield Step(at=date(failure.at), what=what, worker=failure.worker, attempt=failure.attempt, why=why)
    if not any(each.kind in STARTS for each in life) and (start := known.start()):
        yield start
    if end is not None:
        yield end


def _insert(steps: list[Step], step: Step, before: timedelta = timedelta()) -> None:
    """Put a step where its time belongs; also before those that are `before` older."""
    place = next((n for n, each in enumerate(steps) if each.at > step.at - before), len(steps))
    steps.insert(place, step)


def _enqueued(job_id: str, queue: str, known: _Known) -> Step:
    priority = known.record.priority if known.record else known.found.priority
    said_by = _CRON.fullmatch(job_id)
    why = [
        f"by the schedule {said_by[1]}, into {queue}" if said_by else f"into {queue}",
        f"priority {priority}" if priority else "",
        f"not before {_iso(known.eta)}" if known.eta else "",
    ]
    return Step(at=date(known.enqueued_at), what="enqueued", why=", ".join(filter(None, why)))


def _whole(reach: Reach, enqueued_at: int) -> bool:
    """Whether the history goes back to the job's beginning."""
    return bool(reach.begins and enqueued_at and (not reach.trimmed or reach.begins <= enqueued_at))


def _about_history(known: _Known, reach: Reach, gaps: bool) -> Iterator[str]:
    queue = known.found.queue
    if reach.begins is None:
        yield (
            f"there is no history of queue {queue!r}: it is switched off (events=0), or nothing has happened there. "
            "This is what the job itself knows"
        )
    elif not known.enqueued_at:
        lost = "is no longer kept" if known.state([]) is None else "cannot be read"
        yield f"the job itself {lost}: this is what the history knows, which begins at {_iso(reach.begins)}"
    elif not _whole(reach, known.enqueued_at):
        yield (
            f"the history of queue {queue!r} begins at {_iso(reach.begins)}: what happened before was trimmed, and "
            "more starts than these are possible"
        )
    elif gaps:
        yield (
            "some of this is not in the history (a full server refuses it, a worker with events=0 writes none), and "
            "comes from the job itself: more starts than these are possible"
        )


def _about_starts(starts: int, whole: bool, known: _Known, told: Sequence[Transition]) -> Iterator[str]:
    taken = [each.worker for each in told if each.kind in STARTS]
    if known.found.where == "running" and known.found.consumer not in taken[-1:]:
        yield f"{known.found.consumer} has it now (fence {known.found.delivery}): when it took it is not known"
    if starts > 1:
        yield _TWICE.format(starts)
    elif starts == 1 and whole and (state := known.state(told)) is not None and state.final:
        yield _ONCE


def _iso(ms: int) -> str:
    return date(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
