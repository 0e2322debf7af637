"""The end of a run in numbers and sentences: what the judge found, and what `streamq chaos` shows beside it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from streamq.cli.chaos.gauges import Growth
from streamq.cli.chaos.tasks import MAX_CRASHES
from streamq.cli.trial.judge import MEANING, NS, Evidence, Recovered, Verdict, judge, some
from streamq.cli.trial.ledger import ACKED
from streamq.core.job import Reason, State

SUSPECT: Final = 2  # starts; a job that was cut off so often waits until no other such job runs
CRASHED: Final = str(Reason.CRASHED.value)


class Recovery(msgspec.Struct):
    """Seconds from a kill to the next start of a job that it cut off. `late` are those beyond the promise."""

    jobs: int = 0
    p50: float = 0.0
    max: float = 0.0
    promised: float = 0.0
    late: int = 0
    disturbed: int = 0  # not counted: the server was away, the job waited as a suspect, or its taker was struck too


class Findings(msgspec.Struct):
    """All rounds together. `broken` are sentences; nothing is broken if there is none."""

    seed: int
    settings: dict[str, object] = {}
    versions: dict[str, str] = {}
    seconds: float = 0.0
    complete: bool = True
    faults: dict[str, int] = {}
    enqueued: int = 0
    deduplicated: int = 0
    done: int = 0
    poisoned: int = 0  # dead letters, as intended
    crashed: int = 0  # dead letters: each of their starts was cut off
    unanswered: int = 0
    unfinished: int = 0
    retried: int = 0
    lost: int = 0
    phantom: int = 0
    completed_twice: int = 0
    started_again: int = 0
    leases_lost: int = 0
    given_back: int = 0
    unexplained_starts: int = 0
    left_behind: int = 0
    overlaps: int = 0
    unexplained_overlaps: int = 0
    recovery: Recovery = msgspec.field(default_factory=Recovery)
    growth: list[Growth] = []
    server_mib: tuple[float, float] | None = None  # before the run, and when its keys were gone
    broken: list[str] = []
    ledger: str = ""  # where it is kept

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken


def add(found: Findings, seen: Evidence) -> Verdict:
    """The findings of one more round."""
    verdict = judge(seen)
    keys = {entry.job_id: entry.key for entry in seen.entries if entry.event == ACKED}
    acked = Counter(entry.job_id for entry in seen.entries if entry.event == ACKED)
    found.enqueued += len(acked)
    found.deduplicated += acked.total() - len(acked)
    found.done += verdict.done
    found.unfinished += len(seen.unfinished)
    found.retried += seen.retries.total()
    found.lost += len(verdict.lost)
    found.phantom += len(verdict.phantom)
    found.completed_twice += len(set(verdict.twice) | set(verdict.stale))
    found.started_again += sum(count - 1 for count in verdict.starts.values() if count > 1)
    found.leases_lost += sum(max(0, count) for count in seen.lost.values())
    found.given_back += seen.returned.total() - seen.retries.total()
    found.unexplained_starts += len(verdict.overstarted)
    found.left_behind += len(verdict.left)
    found.overlaps += verdict.overlaps
    found.unexplained_overlaps += len(verdict.overlapping)
    _endings(found, seen, verdict)
    for name, names in verdict.broken().items():
        told = [f"{job_id} ({keys[job_id]})" if job_id in keys else job_id for job_id in names]
        found.broken.append(f"{len(names)} {MEANING[name]}: {some(told)}")
    return verdict


def _endings(found: Findings, seen: Evidence, verdict: Verdict) -> None:
    """Whether each job ended as it was meant to: with a result, or dead after it took its workers down."""
    otherwise: list[str] = []
    for job_id, key in {e.job_id: e.key for e in seen.entries if e.event == ACKED}.items():
        state = seen.states.get(job_id, State.PENDING)
        poisoned = key.startswith("poison-")
        most = MAX_CRASHES + 1 + seen.returned[job_id]
        if not state.final or (state is State.SUCCESS and not poisoned):
            continue
        crashed = state is State.FAILURE and seen.reasons.get(job_id) == CRASHED and seen.lost[job_id] >= MAX_CRASHES
        if crashed and verdict.starts[job_id] <= most:
            found.poisoned += poisoned
            found.crashed += not poisoned
        else:
            otherwise.append(f"{job_id} ({key}, {state.value}, {verdict.starts[job_id]} starts)")
    if otherwise:
        found.broken.append(f"{len(otherwise)} jobs ended otherwise than intended: {some(otherwise)}")


def undisturbed(seen: Evidence, verdict: Verdict) -> list[Recovered]:
    """Without jobs that somebody had taken over, and was struck himself before they began."""
    return [
        each
        for each in verdict.recoveries
        if seen.lost[each.job_id] + seen.returned[each.job_id] < verdict.starts[each.job_id]
    ]


def recovery(recoveries: Iterable[Recovered], outages: Sequence[tuple[int, int]], lease: float) -> Recovery:
    """In figures. `outages` are the ns in which the server was away; for a lease afterwards nothing is taken over."""
    quiet = int(lease * NS)
    times: list[float] = []
    disturbed = 0
    for each in recoveries:
        ends = each.at + int(each.seconds * NS)
        if each.attempt > SUSPECT or any(begin < ends and each.at < end + quiet for begin, end in outages):
            disturbed += 1
        else:
            times.append(each.seconds)
    promised = 1.25 * lease + 1.0
    if not times:
        return Recovery(promised=promised, disturbed=disturbed)
    late = sum(each > promised for each in times)
    return Recovery(len(times), round(statistics.median(times), 2), round(max(times), 2), promised, late, disturbed)
