"""The books, the records and the history side by side, in Jepsen's terms: what was lost, invented, done twice.

`judge` is pure: a doctored ledger is judged like a true one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from streamq.cli.trial.ledger import ABORT, ACKED, COMMIT, END, FAIL, FAULT, INTENT, START, Entry
from streamq.core.job import State

FINAL: Final = frozenset(state for state in State if state.final)
KILL: Final = "kill-"  # the FAULT of a process that was killed, before its pid
NS: Final = 1e9


@dataclass
class Evidence:
    """What was seen. Of each job `ends` counts the recorded ends, `lost` the leases that it lost, `returned` what else
    explains another start: retries, releases, snoozes. `others` are jobs that a schedule enqueued, not we."""

    entries: list[Entry] = field(default_factory=list[Entry])
    states: dict[str, State] = field(default_factory=dict[str, State])  # of the records
    reasons: dict[str, str] = field(default_factory=dict[str, str])  # of those that failed
    ends: Counter[str] = field(default_factory=Counter[str])
    lost: Counter[str] = field(default_factory=Counter[str])
    returned: Counter[str] = field(default_factory=Counter[str])
    retries: Counter[str] = field(default_factory=Counter[str])
    stale: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    unfinished: set[str] = field(default_factory=set[str])  # jobs that Redis still has
    others: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, slots=True)
class Recovered:
    """A job that a kill cut off at `at` (ns) began again after so many `seconds`, for the `attempt`-th time."""

    job_id: str
    at: int
    seconds: float
    attempt: int


@dataclass
class Verdict:
    """Each of the `PROMISES` lists what broke one; all of them are empty in a sound run."""

    lost: list[str]
    phantom: list[str]
    twins: list[str]
    twice: list[str]
    stale: list[str]
    overstarted: list[str]
    overlapping: list[str]
    left: list[str]
    recoveries: list[Recovered] = field(default_factory=list[Recovered])
    starts: Counter[str] = field(default_factory=Counter[str])
    overlaps: int = 0  # of jobs whose earlier attempt had lost its lease
    done: int = 0

    PROMISES = ("lost", "phantom", "twins", "twice", "stale", "overstarted", "overlapping", "left")

    def broken(self) -> dict[str, list[str]]:
        """Which promises were broken, and by what."""
        return {name: found for name in self.PROMISES if (found := getattr(self, name))}


MEANING: Final = {
    "lost": "jobs were acknowledged, and have neither a recorded end nor a place in Redis",
    "phantom": "jobs ran or ended, and nobody enqueued them",
    "twins": "calls gave several jobs",
    "twice": "jobs were completed twice",
    "stale": "jobs were completed by an attempt that had lost its lease",
    "overstarted": "jobs began more often than lost leases and retries explain",
    "overlapping": "jobs ran beside themselves, and had not lost their lease",
    "left": "keys and entries were left behind",
}


@dataclass
class Run:
    """One attempt, from START to whatever ended it."""

    pid: int
    begin: int
    end: float = float("inf")


def judge(seen: Evidence) -> Verdict:
    """Compare the books with what Redis says."""
    ids: dict[str, set[str]] = defaultdict(set)
    acked: dict[str, str] = {}
    intents, commits, starts = set[str](), Counter[str](), Counter[str]()
    for entry in seen.entries:
        if entry.event == INTENT:
            intents.add(entry.key)
        elif entry.event == COMMIT:
            commits[entry.job_id] += 1
        elif entry.event in (ACKED, START):
            ids[entry.key].add(entry.job_id)
            starts[entry.job_id] += entry.event == START
            if entry.event == ACKED:
                acked[entry.job_id] = entry.key
    known = {job_id for key in intents for job_id in ids.get(key, ())} | seen.others
    ended = {job_id for job_id, state in seen.states.items() if state in FINAL}
    runs, recoveries = runs_of(seen.entries)
    overlaps = {job_id: found for job_id, each in runs.items() if (found := _overlaps(each))}
    return Verdict(
        lost=sorted(acked[job_id] for job_id in acked.keys() - ended - seen.unfinished),
        phantom=sorted((set(seen.states) | set(starts) | set(seen.ends)) - known),
        twins=sorted(key for key, found in ids.items() if len(found) > 1),
        twice=_more_than(1, seen.ends, commits),
        stale=sorted(seen.stale),
        overstarted=sorted(
            job_id for job_id, count in starts.items() if count > 1 + seen.lost[job_id] + seen.returned[job_id]
        ),
        overlapping=sorted(job_id for job_id, count in overlaps.items() if count > seen.lost[job_id]),
        left=sorted(seen.left),
        recoveries=recoveries,
        starts=starts,
        overlaps=sum(overlaps.values()),
        done=sum(state is State.SUCCESS for state in seen.states.values()),
    )


def _more_than(most: int, *counted: Counter[str]) -> list[str]:
    return sorted({job_id for counts in counted for job_id, count in counts.items() if count > most})


def runs_of(entries: Iterable[Entry]) -> tuple[dict[str, list[Run]], list[Recovered]]:
    """The attempts of each job, and how those that a kill cut off came back. The entries are in order of time."""
    runs: dict[str, list[Run]] = defaultdict(list)
    under_way: dict[int, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))  # pid -> job
    killed: dict[str, int] = {}  # job -> when its last worker was
    recoveries: list[Recovered] = []
    for entry in entries:
        job_id, at = entry.job_id, entry.at
        if entry.event == START:
            run = Run(entry.pid, at)
            runs[job_id].append(run)
            under_way[entry.pid][job_id].append(run)
            if (since := killed.pop(job_id, None)) is not None:
                recoveries.append(Recovered(job_id, since, (at - since) / NS, entry.attempt))
        elif entry.event in (END, FAIL, ABORT):
            if mine := under_way[entry.pid].get(job_id):
                mine.pop(0).end = at
        elif entry.event == FAULT and entry.key.startswith(KILL):
            for victim, cut_off in under_way.pop(int(entry.key.removeprefix(KILL)), {}).items():
                for run in cut_off:
                    run.end = at
                    killed[victim] = at
    return runs, recoveries


def _overlaps(runs: list[Run]) -> int:
    return sum(run.begin < earlier.end for n, run in enumerate(runs) for earlier in runs[:n])


def some(names: Collection[str], most: int = 5) -> str:
    """The first few of them."""
    return ", ".join(sorted(names)[:most]) + (" …" if len(names) > most else "")
