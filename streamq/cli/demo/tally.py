"""The demo in numbers: what the trial's judge found, and what a demo shows beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from streamq.cli.trial.judge import MEANING, Evidence, judge, some
from streamq.cli.trial.ledger import ACKED, END, FAIL, INTENT, START, Entry
from streamq.core.job import State

EARLY: Final = 2_000_000  # ns; the server counts in whole milliseconds


@dataclass(slots=True)
class Seen:
    """Everything that was seen. `delays` are the ns that a job had to wait; `dead` the ids of the dead letters."""

    evidence: Evidence = field(default_factory=Evidence)
    killed: set[int] = field(default_factory=set[int])
    delays: Mapping[str, int] = field(default_factory=dict[str, int])
    dead: set[str] = field(default_factory=set[str])
    complete: bool = True  # False: the run timed out, and jobs may still be under way
    seconds: float = 0.0


class Latency(msgspec.Struct):
    """Milliseconds from the call of enqueue to the first line of the task, one job at a time on idle workers."""

    jobs: int
    p50: float
    p99: float


class Tally(msgspec.Struct):
    """The numbers, and which promises were broken.

    `enqueued - deduplicated == done + failed_as_intended` if nothing was broken. `recovered` are the jobs that
    a killed worker had begun and another one ended; `ran_again` of these had reached their last line before
    the kill: they ran twice, and were recorded once.
    """

    enqueued: int = 0
    done: int = 0
    failed_as_intended: int = 0
    deduplicated: int = 0
    retried: int = 0
    recovered: int = 0
    ran_again: int = 0
    delayed: int = 0
    cron_fired: int = 0
    lost: int = 0
    completed_twice: int = 0
    throughput: float = 0.0
    latency: Latency | None = None
    seconds: float = 0.0
    broken: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken


def kind(key: str) -> str:
    """`slow` of `slow-12`."""
    return key.partition("-")[0]


class _Books:
    """The entries, sorted by what they are about."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.intents: dict[str, int] = {}
        self.ids: dict[str, list[str]] = defaultdict(list)  # key -> the id of each acknowledged call
        self.runs: dict[str, list[Entry]] = defaultdict(list)  # job id -> START, FAIL, END
        for entry in entries:
            if entry.event == INTENT:
                self.intents.setdefault(entry.key, entry.at)
            elif entry.event == ACKED:
                self.ids[entry.key].append(entry.job_id)
            else:
                self.runs[entry.job_id].append(entry)
        self.key = {job_id: key for key, ids in self.ids.items() for job_id in ids}

    def times(self, event: str, key: str) -> list[int]:
        """When that happened to the jobs of one key, in ns."""
        runs = (run for job_id in set(self.ids.get(key, ())) for run in self.runs.get(job_id, ()))
        return [run.at for run in runs if run.event == event]


def tally(seen: Seen) -> Tally:
    """Judge, and count. Pure: a doctored ledger is judged like a true one."""
    books = _Books(seen.evidence.entries)
    seen.evidence.others = {job_id for job_id, runs in books.runs.items() if kind(runs[0].key) == "cron"}
    verdict = judge(seen.evidence)
    found = Tally(seconds=round(seen.seconds, 2))
    if not seen.complete:
        found.broken.append("the run did not end in time")
    _count(found, books, seen)
    found.lost = len(verdict.lost)
    found.completed_twice = len(verdict.twice)
    broken = verdict.broken()
    found.broken.extend(f"{len(names)} {MEANING[name]}: {some(names)}" for name, names in broken.items())
    _promises(found, books, seen)
    found.throughput = round(_throughput(books), 1)
    found.latency = _latency(books)
    return found


def _count(found: Tally, books: _Books, seen: Seen) -> None:
    states = seen.evidence.states
    found.enqueued = sum(len(ids) for ids in books.ids.values())
    found.deduplicated = sum(len(ids) - len(set(ids)) for ids in books.ids.values())
    found.retried = sum(seen.evidence.retries[job_id] for job_id in books.key)
    found.cron_fired = len(seen.evidence.others)
    found.delayed = sum(kind(key) == "delayed" for key in books.ids)
    surprises: list[str] = []
    for job_id, key in books.key.items():
        state = states.get(job_id)
        if state is None or not state.final:
            continue
        if state is State.SUCCESS and kind(key) != "doomed":
            found.done += 1
        elif state is State.FAILURE and kind(key) == "doomed":
            found.failed_as_intended += 1
        else:
            surprises.append(f"{key} {state}")
    if surprises:
        found.broken.append(f"{len(surprises)} jobs ended otherwise than intended: {some(surprises)}")
    for runs in books.runs.values():
        ended_by = [each.pid for each in runs if each.event == END]
        cut_off = any(pid in seen.killed for pid in unfinished(runs))
        again = len(ended_by) == 2 and len(seen.killed.intersection(ended_by)) == 1
        found.ran_again += again
        found.recovered += (cut_off or again) and any(each.pid not in seen.killed for each in runs)


def unfinished(runs: Iterable[Entry]) -> list[int]:
    """The processes that began an attempt and neither ended nor failed it."""
    begun: dict[tuple[int, int], int] = defaultdict(int)
    for each in runs:
        begun[each.pid, each.attempt] += 1 if each.event == START else -1
    return [pid for (pid, _), count in begun.items() if count > 0]


def _promises(found: Tally, books: _Books, seen: Seen) -> None:
    """Those that a demo alone can judge: it knows what its jobs were meant to do."""
    ended = {job_id for job_id, runs in books.runs.items() if any(each.event == END for each in runs)}
    failed = {job_id for job_id, runs in books.runs.items() if any(each.event == FAIL for each in runs)}
    needed = {State.SUCCESS: ended, State.FAILURE: failed}
    recorded = {job_id: needed[state] for job_id, state in seen.evidence.states.items() if state in needed}
    phantoms = [books.key[job_id] for job_id, ran in recorded.items() if job_id in books.key and job_id not in ran]
    doomed = {job_id for job_id, key in books.key.items() if kind(key) == "doomed"}
    complaints = {
        "calls of enqueue were never acknowledged": [key for key in books.intents if key not in books.ids],
        "jobs have a recorded end, but never ran": phantoms,
        "delayed jobs began too early": _early(books, seen.delays),
        "jobs that failed for good are no dead letters": sorted(books.key[each] for each in doomed - seen.dead),
        "dead letters are of jobs that did not fail": sorted(seen.dead - doomed),
    }
    if seen.complete:
        found.broken.extend(f"{len(keys)} {what}: {some(keys)}" for what, keys in complaints.items() if keys)


def _early(books: _Books, delays: Mapping[str, int]) -> list[str]:
    early: list[str] = []
    for key, delay in delays.items():
        starts = books.times(START, key)
        if starts and min(starts) < books.intents[key] + delay - EARLY:
            early.append(key)
    return early


def _throughput(books: _Books) -> float:
    """Jobs a second of the burst, from the first enqueue to the last line of the last job."""
    keys = [key for key in books.ids if kind(key) == "burst"]
    ends = [at for key in keys for at in books.times(END, key)]
    if not ends:
        return 0.0
    took = max(ends) - min(books.intents[key] for key in keys)
    return len(ends) / (took / 1e9) if took > 0 else 0.0


def _latency(books: _Books) -> Latency | None:
    waits = sorted(
        (run.at - books.intents[key]) / 1e6
        for key, ids in books.ids.items()
        if kind(key) == "probe"
        for run in books.runs.get(ids[0], [])[:1]
    )
    if not waits:
        return None
    return Latency(len(waits), round(_at(waits, 0.5), 2), round(_at(waits, 0.99), 2))


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]
