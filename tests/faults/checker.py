"""The ledgers, the records and the history side by side, in Jepsen's terms. `judge` is pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import redis

from streamq import State
from streamq.broker import wire
from streamq.broker.broker import Broker
from streamq.broker.history import ENDS, History, TransitionKind
from tests.conftest import leaked
from tests.faults.ledger import ABORT, ACKED, COMMIT, END, FAULT, INTENT, START, Entry

FINAL = frozenset(state for state in State if state.final)
SMALL = 65_536  # bytes of a key that holds nothing


@dataclass
class Evidence:
    """What was seen. Of each job `ends` counts the recorded ends, `lost` the lost leases, `returned` what else explains
    another start: retries, releases, snoozes."""

    entries: list[Entry] = field(default_factory=list[Entry])
    states: dict[str, State] = field(default_factory=dict[str, State])
    ends: Counter[str] = field(default_factory=Counter[str])
    lost: Counter[str] = field(default_factory=Counter[str])
    returned: Counter[str] = field(default_factory=Counter[str])
    stale: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])


@dataclass
class Verdict:
    """Each list names what broke a promise; all of them are empty in a sound run."""

    lost: list[str]  # acknowledged, and no end
    phantom: list[str]  # ended, and nobody asked for it
    twins: list[str]  # one call, several jobs
    twice: list[str]  # ended more than once
    stale: list[str]  # ended by an attempt that had lost its lease to another one
    overstarted: list[str]  # more starts than 1 + lost leases + what was given back or retried
    overlapping: list[str]  # ran beside itself without having lost its lease
    left: list[str]  # keys and entries that nothing unfinished explains
    recovery: dict[str, float] = field(default_factory=dict[str, float])  # s from the kill to the next start
    starts: Counter[str] = field(default_factory=Counter[str])
    cut: Counter[str] = field(default_factory=Counter[str])  # attempts that a kill, or their own worker, ended
    overlaps: Counter[str] = field(default_factory=Counter[str])  # starts beside an attempt that went on
    done: int = 0

    PROMISES = ("lost", "phantom", "twins", "twice", "stale", "overstarted", "overlapping", "left")

    def broken(self) -> dict[str, list[str]]:
        return {name: found for name in self.PROMISES if (found := getattr(self, name))}

    def unexplained(self) -> list[str]:
        """Jobs that began more often than the ledgers explain by kills and by attempts that were given up: stricter
        than `overstarted`, which also takes a lost lease for a reason."""
        return sorted(job_id for job_id, count in self.starts.items() if count > 1 + self.cut[job_id])

    def assert_base(self, done: int | None = None, *, but: Iterable[str] = ()) -> None:
        """Every promise is kept, except those named."""
        broken = {name: found[:5] for name, found in self.broken().items() if name not in but}
        assert not broken, broken
        assert done is None or self.done == done


@dataclass
class Run:
    """One attempt, from START to whatever ended it."""

    pid: int
    begin: int
    end: float = float("inf")
    cut: bool = False


def judge(seen: Evidence) -> Verdict:
    """A doctored ledger is judged like a true one."""
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
    known = {job_id for key in intents for job_id in ids.get(key, ())}
    runs, recovery = _runs(seen.entries)
    overlaps = Counter({job_id: _overlaps(found) for job_id, found in runs.items()})
    return Verdict(
        lost=sorted(key for job_id, key in acked.items() if seen.states.get(job_id) not in FINAL),
        phantom=sorted((set(seen.states) | set(starts)) - known),
        twins=sorted(key for key, found in ids.items() if len(found) > 1),
        twice=sorted(
            job_id for job_id in set(seen.ends) | set(commits) if seen.ends[job_id] > 1 or commits[job_id] > 1
        ),
        stale=sorted(seen.stale),
        overstarted=sorted(
            job_id for job_id, count in starts.items() if count > 1 + seen.lost[job_id] + seen.returned[job_id]
        ),
        overlapping=sorted(job_id for job_id, count in overlaps.items() if count > seen.lost[job_id]),
        left=sorted(seen.left),
        recovery=recovery,
        starts=starts,
        cut=Counter({job_id: sum(run.cut for run in found) for job_id, found in runs.items()}),
        overlaps=+overlaps,
        done=sum(state is State.SUCCESS for state in seen.states.values()),
    )


def _runs(entries: Iterable[Entry]) -> tuple[dict[str, list[Run]], dict[str, float]]:
    runs: dict[str, list[Run]] = defaultdict(list)
    killed: dict[str, int] = {}  # job -> when its last worker was
    recovery: dict[str, float] = {}
    committed: set[tuple[str, int]] = set()
    for entry in entries:
        if entry.event == START:
            runs[entry.job_id].append(Run(entry.pid, entry.at))
            if entry.job_id in killed:
                recovery[entry.job_id] = (entry.at - killed.pop(entry.job_id)) / 1e9
        elif entry.event == COMMIT:
            committed.add((entry.job_id, entry.pid))
        elif entry.event in (END, ABORT):
            for run in runs[entry.job_id]:
                if run.pid == entry.pid and run.end == float("inf"):
                    run.end, run.cut = entry.at, entry.event == ABORT
                    break
        elif entry.event == FAULT and entry.key.startswith("kill-"):
            # What had come to its end, and was not recorded yet, is cut off as well.
            pid = int(entry.key[5:])
            for job_id, found in runs.items():
                for run in found:
                    if run.pid == pid and not run.cut and (job_id, pid) not in committed:
                        run.end, run.cut = min(run.end, entry.at), True
                        killed[job_id] = entry.at
    return runs, recovery


def _overlaps(runs: list[Run]) -> int:
    return sum(run.begin < earlier.end for n, run in enumerate(runs) for earlier in runs[:n])


# ---- what the server says -----------------------------------------------------------------------------------

ANOTHER_ENTRY = frozenset({TransitionKind.RETRYING, TransitionKind.SNOOZED, TransitionKind.REVIVED})
GIVEN_BACK = ANOTHER_ENTRY | {TransitionKind.RELEASED}


async def evidence(broker: Broker, client: redis.Redis, queue: str, entries: list[Entry]) -> Evidence:
    """The records and the history of one queue, and what is left of it. Every worker has ended."""
    seen, k = Evidence(entries), broker.keys(queue)
    for name in client.scan_iter(k.records + "*", count=1000):
        record = cast("bytes | None", client.get(name))
        if record is not None:
            seen.states[name.decode().removeprefix(k.records)] = wire.decode_record(record).state
    fences: dict[str, int] = {}  # under which delivery it ended, of the entry that is being read
    async for transition in History(broker).backward(queue):
        job_id, kind = transition.job_id, transition.kind
        if kind in ENDS:
            fences[job_id] = transition.fence
        elif kind in ANOTHER_ENTRY:
            fences.pop(job_id, None)
        elif kind is TransitionKind.TAKEN_OVER and transition.fence > fences.get(job_id, transition.fence):
            seen.stale.append(job_id)
        seen.ends[job_id] += kind in ENDS
        # A suspect that had to wait for its turn was nobody's meanwhile: not every lost lease is called so.
        seen.lost[job_id] += (kind is TransitionKind.TAKEN_OVER) - (kind is TransitionKind.RELEASED)
        seen.returned[job_id] += kind in GIVEN_BACK
    seen.left = left_behind(broker, client, queue) + strangers(broker, client, queue, entries)
    return seen


def strangers(broker: Broker, client: redis.Redis, queue: str, entries: Iterable[Entry]) -> list[str]:
    """Consumers of workers that said goodbye. Those of the killed ones stay for some leases, `nobody` for ever."""
    k = broker.keys(queue)
    killed = {entry.key[5:] for entry in entries if entry.event == FAULT and entry.key.startswith("kill-")}
    found = {name.decode() for name in cast("list[bytes]", client.zrange(k.workers, 0, -1))}
    for stream in filter(client.exists, map(k.stream, range(10))):
        for group in client.xinfo_groups(stream):
            found |= {each["name"].decode() for each in client.xinfo_consumers(stream, group["name"])}
    return [f"consumer {name}" for name in sorted(found - {"nobody"}) if not killed & set(name.split("-"))]


def left_behind(broker: Broker, client: redis.Redis, queue: str) -> list[str]:
    """Entries, notes and keys of a queue in which nothing is unfinished and nobody works."""
    k = broker.keys(queue)
    left = [name for name in (k.jobs, k.side, k.due, k.body) if client.exists(name)]
    for stream in map(k.stream, range(10)):
        if not client.exists(stream):
            continue
        left += [f"{stream}: {client.xlen(stream)} entries"] * bool(client.xlen(stream))
        for group in client.xinfo_groups(stream):
            left += [f"{stream}: {group['pending']} pending"] * bool(group["pending"])
    # What stays for ever stays small. Dead letters and the history are kept, and have bounds of their own.
    for name in (*map(k.stream, range(10)), k.cron, k.workers, k.worker_info):
        size = client.memory_usage(name, samples=0) or 0
        left += [f"{name}: {size} bytes"] * (size > SMALL)
    with redis.Redis.from_url(broker.connections.url_for_children, decode_responses=True) as text:
        return left + [name for name in leaked(text, broker.options.namespace) if name not in left]
