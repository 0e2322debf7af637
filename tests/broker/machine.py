"""Every transition in any order: three workers by hand and the real scripts, and a model that says what they answer.

No job is lost, none is completed twice, nobody who keeps his lease is robbed, no job starts without a reason, each
reply is the one that the model expects, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from streamq.broker.broker import Broker, NewJob, Placed
from streamq.broker.keys import PERMANENT
from streamq.broker.renewer import Held
from streamq.broker.wire import encode_record
from streamq.core.job import Delivery, Reason, State
from streamq.core.options import AppOptions
from streamq.core.outcome import Release, Settlement
from tests.broker.byhand import LEASE, QUEUE, Server, Worker, again, buried, done, job, record

T = TypeVar("T")
WORKERS = st.integers(0, 2)
PICK = st.integers(0, 1_000)
ENDS: dict[str, Callable[[Delivery], Settlement]] = {
    "complete": lambda _: done(),
    "bury": lambda delivery: buried(delivery, Reason.FAILED),
    "retry": lambda delivery: again(delivery, 20),
    "again": again,
    "release": lambda _: Release(),
}
WAYS = st.sampled_from(list(ENDS))
KINDS = st.sampled_from(["plain", "plain", "delayed", "key", "own"])
ENTRIES = st.tuples(st.integers(0, 2), PICK)


@dataclass
class Known:
    """What the model knows of one job: where it is, who holds it, and how often it ended.

    `place` is "ready" (nobody had it), "due" (at `at`), "handed" (somebody has it, or gave it back) or "".
    """

    priority: int
    place: str
    at: int = 0
    holder: tuple[str, bytes, int] | None = None
    expired: bool = False  # the holder's lease
    cancelling: bool = False
    starts: int = 0
    reasons: int = 1  # for which it may have started
    ends: int = 0
    end: State | None = None

    def ended(self, state: State) -> None:
        self.ends, self.end, self.place, self.holder = self.ends + 1, state, "", None


class Machine(RuleBasedStateMachine):
    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__()
        self.run_async = runner.run
        self.namespace = f"m{uuid.uuid4().hex[:12]}"
        self.broker = Broker(url, AppOptions(namespace=self.namespace))
        self.client = redis.Redis.from_url(url)
        self.look = Server(self.client, self.broker)
        self.clock = 1_000_000
        self.broker.now = lambda: self.clock
        self.workers = [Worker(self.broker, f"w{n}") for n in range(3)]
        self.zombies: list[tuple[Worker, Delivery]] = []
        self.jobs: dict[str, Known] = {}
        self.keys: dict[str, tuple[str, str]] = {}  # id and fingerprint of who has it
        self.names = itertools.count()
        self.added: list[tuple[list[NewJob], int, list[Placed]]] = []
        self.turned: dict[str, tuple[Worker, list[tuple[Delivery, Settlement]], list[str], int]] = {}
        self.paused = False

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.run_async(call)

    @initialize()
    def begin(self) -> None:
        self.do(self.broker.open())
        self.renewer = self.broker.renewer()

    # ---- producers ----------------------------------------------------------------------------------------

    @rule(kind=KINDS, entries=st.lists(ENTRIES, min_size=1, max_size=4), again=st.booleans())
    def add(self, kind: str, entries: list[tuple[int, int]], again: bool) -> None:
        """`again`: the reply is lost, and the same request is sent once more."""
        jobs = [self.new_job(kind, *entry) for entry in entries]
        placed = self.do(self.broker.add(QUEUE, jobs))
        assert placed == [self.expected(each) for each in jobs]
        self.added.append((jobs, next(self.broker._requests) - 1, placed))  # pyright: ignore[reportPrivateUsage]
        if again:
            self.an_old_add_is_sent_again(0)

    def new_job(self, kind: str, priority: int, pick: int) -> NewJob:
        name, delay = f"j{next(self.names)}", 50 * (kind == "delayed" or (kind == "key" and pick % 7 == 0))
        if kind == "key":
            print_, again = str(pick % 2), pick % 5 == 0
            return job(name, priority=priority, delay=delay, key=f"k{pick % 3}", fingerprint=print_, retry_failed=again)
        if kind == "own" and self.jobs:
            name = list(self.jobs)[pick % len(self.jobs)]
        return job(name, priority=priority, delay=delay, own_id=kind == "own")

    def expected(self, new: NewJob) -> Placed:
        """What becomes of a job, one after the other: it is new, or stands for one that is known."""
        owner, fingerprint = self.keys.get(new.key, ("", ""))
        failed = owner and self.jobs[owner].end in (State.FAILURE, State.CANCELLED)
        if owner and not (new.retry_failed and failed):
            return Placed(owner, "duplicate" if fingerprint == new.fingerprint else "mismatch")
        if new.own_id and new.job_id in self.jobs:
            return Placed(new.job_id, "duplicate")
        self.jobs[new.job_id] = Known(new.priority, "due" if new.delay else "ready", self.clock + new.delay)
        if new.key:
            self.keys[new.key] = new.job_id, new.fingerprint
        return Placed(new.job_id, "new")

    @precondition(lambda self: self.added)
    @rule(pick=PICK)
    def an_old_add_is_sent_again(self, pick: int) -> None:
        jobs, request, placed = self.added[-1 - pick % len(self.added)]
        later = self.broker._requests  # pyright: ignore[reportPrivateUsage]
        self.broker._requests = itertools.count(request)  # pyright: ignore[reportPrivateUsage]
        assert self.do(self.broker.add(QUEUE, jobs)) == placed
        self.broker._requests = later  # pyright: ignore[reportPrivateUsage]

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        name = list(self.jobs)[pick % len(self.jobs)]
        end = encode_record(record(State.CANCELLED))
        answer = self.do(self.broker.cancel(QUEUE, name, "why", end, 60_000))
        known = self.jobs[name]
        if known.ends:
            assert answer == "finished"
        elif known.holder is not None:
            assert answer == "cancelling"
            known.cancelling = True
        else:
            assert answer == "cancelled"
            known.ended(State.CANCELLED)

    # ---- operators ----------------------------------------------------------------------------------------

    @rule(number=WORKERS, pick=PICK, stays=st.sampled_from([False, False, False, True]))
    def pause(self, number: int, pick: int, stays: bool) -> None:
        """Somebody looks for jobs meanwhile, and may find none."""
        self.do(self.broker.pause(QUEUE, "why"))
        self.paused = True
        self.fetch(number, 2, False)
        if self.deliveries():
            self.lease_runs_out(pick, number, False)
        if not stays:
            self.resume()

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        assert self.do(self.broker.resume(QUEUE))
        self.paused = False

    @rule(ms=st.sampled_from([1, 30, 100]))
    def time_passes(self, ms: int) -> None:
        self.clock += ms
        self.promote()
        self.do(self.broker.tidy(QUEUE))

    def promote(self) -> None:
        due = [known for known in self.jobs.values() if known.place == "due"]
        now = [known for known in due if known.at <= self.clock]
        later = [known.at - self.clock for known in due if known.at > self.clock]
        assert self.do(self.broker.promote(QUEUE)) == (len(now), min(later, default=None))
        for known in now:
            known.place = "ready"

    # ---- workers ------------------------------------------------------------------------------------------

    @rule(number=WORKERS, want=st.integers(0, 4), lost=st.booleans())
    def fetch(self, number: int, want: int, lost: bool) -> None:
        """`lost`: the reply never arrives, and the worker does not know what it holds."""
        worker, ready = self.workers[number], [known.priority for known in self.jobs.values() if known.place == "ready"]
        turn = self.do(worker.turn(want=want))
        assert turn.paused == (self.paused and want > 0)
        expected = [] if self.paused else sorted(ready, reverse=True)[:want]
        assert [each.priority for each in turn.deliveries] == expected
        for each in turn.deliveries:
            assert self.jobs[each.job_id].place == "ready"
        self.hold(worker, turn.deliveries, lost)

    @rule(number=WORKERS, want=st.integers(1, 4), suspects=st.integers(0, 2), lost=st.booleans())
    def sweep(self, number: int, want: int, suspects: int, lost: bool) -> None:
        worker = self.workers[number]
        taken = self.do(worker.sweep(want, suspects))
        assert not (self.paused and taken)
        assert len(taken) <= want
        for each in taken:
            known = self.jobs[each.job_id]
            assert known.place == "handed"
            assert known.holder is None or known.expired  # nobody who keeps his lease is robbed
        self.hold(worker, taken, lost)
        self.look_at_holders()

    def hold(self, worker: Worker, taken: list[Delivery], lost: bool) -> None:
        for each in taken:
            known = self.jobs[each.job_id]
            assert known.ends == 0
            known.place, known.holder, known.expired = "handed", (worker.name, each.entry, each.count), False
            known.starts += 1
        if lost:
            self.zombies += [(worker, each) for each in taken]
            worker.held = [each for each in worker.held if each not in taken]

    def look_at_holders(self) -> None:
        # A suspect that the sweep took and handed back belongs to nobody; the script alone knows which.
        for name, known in self.jobs.items():
            if known.holder and self.do(self.broker.find(QUEUE, name)).consumer == "nobody":
                assert known.expired
                known.holder = None

    @precondition(lambda self: self.anybody())
    @rule(pick=PICK, ways=st.lists(WAYS, min_size=1, max_size=3))
    def settle(self, pick: int, ways: list[str]) -> None:
        worker = self.anybody()[pick % len(self.anybody())]
        self.settle_all(worker, list(zip(worker.held, ways, strict=False)))

    @precondition(lambda self: self.zombies)
    @rule(pick=PICK, way=WAYS)
    def settle_late(self, pick: int, way: str) -> None:
        worker, delivery = self.zombies[pick % len(self.zombies)]
        self.settle_all(worker, [(delivery, way)])

    def settle_all(self, worker: Worker, ways: list[tuple[Delivery, str]]) -> None:
        pairs = [(delivery, ENDS[way](delivery)) for delivery, way in ways]
        mine = [self.holds(worker, delivery) for delivery, _ in pairs]
        replies = self.do(worker.turn(pairs)).replies
        assert [reply == "ok" for reply in replies] == mine
        for (delivery, way), reply in zip(ways, replies, strict=True):
            if reply == "ok":
                self.settled(self.jobs[delivery.job_id], way)
        if "ok" in replies:
            self.turned[worker.name] = (worker, pairs, replies, worker.request)

    def settled(self, known: Known, way: str) -> None:
        known.holder, known.reasons = None, known.reasons + 1
        if way in ("complete", "bury"):
            known.ended(State.SUCCESS if way == "complete" else State.FAILURE)
        elif way != "release":  # which keeps its place
            known.place, known.at = ("due", self.clock + 20) if way == "retry" else ("ready", 0)

    @precondition(lambda self: self.turned)
    @rule(pick=PICK)
    def the_newest_turn_is_sent_again(self, pick: int) -> None:
        worker, pairs, replies, request = list(self.turned.values())[pick % len(self.turned)]
        repeated = self.do(self.broker.turn(QUEUE, worker.name, pairs, 0, request=request)).replies
        assert repeated == ["dup" if each == "ok" else each for each in replies]

    @precondition(lambda self: self.turned)
    @rule(pick=PICK, want=st.integers(0, 3))
    def a_turn_before_the_newest_is_late(self, pick: int, want: int) -> None:
        """Even what the worker still holds is neither settled by it, nor is anything handed out."""
        worker, pairs, _, request = list(self.turned.values())[pick % len(self.turned)]
        held = [(each, done()) for each in worker.held] or pairs
        turn = self.do(self.broker.turn(QUEUE, worker.name, held, want, request=request - 1))
        assert (turn.replies, turn.deliveries) == (["gone"] * len(held), [])

    @precondition(lambda self: self.deliveries())
    @rule(pick=PICK)
    def renew(self, pick: int) -> None:
        """One of all that ever had the job, which may have lost it."""
        worker, delivery = self.deliveries()[pick % len(self.deliveries())]
        known, mine = self.jobs[delivery.job_id], self.holds(worker, delivery)
        fence = Held(delivery.priority, delivery.entry.decode(), delivery.count, delivery.job_id)
        lost, cancelled = self.renewer.renew(QUEUE, worker.name, [fence], b"", LEASE)
        assert lost == ([] if mine else [delivery.job_id])
        assert cancelled == ({delivery.job_id: "why"} if mine and known.cancelling else {})
        known.expired = known.expired and not mine

    @precondition(lambda self: self.anybody())
    @rule(pick=PICK)
    def kill(self, pick: int) -> None:
        worker = self.anybody()[pick % len(self.anybody())]
        self.zombies += [(worker, each) for each in worker.held]
        worker.held = []

    @precondition(lambda self: self.anybody())
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        worker = self.anybody()[pick % len(self.anybody())]
        self.do(self.broker.leave(QUEUE, worker.name))
        self.turned.pop(worker.name, None)  # its answers went with it
        self.zombies += [(worker, each) for each in worker.held]
        worker.held = []
        for known in self.jobs.values():
            if known.holder and known.holder[0] == worker.name:
                known.holder, known.reasons = None, known.reasons + 1

    @precondition(lambda self: self.deliveries())
    @rule(pick=PICK, heir=st.none() | WORKERS, late=st.booleans())
    def lease_runs_out(self, pick: int, heir: int | None, late: bool) -> None:
        """Nobody waits for that: XCLAIM IDLE says how long it has been. An `heir` looks for such jobs at once; then the
        one before it comes, too `late`."""
        worker, delivery = self.deliveries()[pick % len(self.deliveries())]
        self.look.expire(delivery)
        known = self.jobs[delivery.job_id]
        if known.holder and known.holder[1] == delivery.entry and not known.expired:
            known.expired, known.reasons = True, known.reasons + 1
        if heir is not None:
            self.sweep(heir, 4, 1, False)
        if late:
            worker.held = [each for each in worker.held if each is not delivery]
            self.settle_all(worker, [(delivery, "complete")])

    # ---- what always holds ------------------------------------------------------------------------------

    def holds(self, worker: Worker, delivery: Delivery) -> bool:
        return self.jobs[delivery.job_id].holder == (worker.name, delivery.entry, delivery.count)

    def unfinished(self) -> list[str]:
        return [name for name, known in self.jobs.items() if not known.ends]

    def anybody(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.held]

    def deliveries(self) -> list[tuple[Worker, Delivery]]:
        return [(worker, each) for worker in self.workers for each in worker.held] + self.zombies

    @invariant()
    def no_job_is_lost_and_none_is_there_twice(self) -> None:
        assert set(self.look.unfinished()) == set(self.unfinished())
        waiting = int(self.client.zcard(self.look.keys.due))
        assert waiting == sum(known.place == "due" for known in self.jobs.values())
        assert self.look.lengths() + waiting == len(self.unfinished())
        assert int(self.client.hlen(self.look.keys.body)) == waiting

    @invariant()
    def each_end_is_recorded_once(self) -> None:
        recorded = {
            key.decode().rpartition("}:r:")[2] for key in self.client.scan_iter(self.look.keys.records + "*", 1000)
        }
        assert recorded == {name for name, known in self.jobs.items() if known.ends}
        assert all(known.ends <= 1 for known in self.jobs.values())

    @invariant()
    def no_job_starts_without_a_reason(self) -> None:
        """Once, and once more for each lost lease, retry, or delivery that was given back."""
        assert all(known.starts <= known.reasons for known in self.jobs.values())

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            for key in self.client.scan_iter(f"*{self.namespace}*", count=1000):
                self.client.delete(key)
            self.client.close()
            self.do(self.broker.close())

    def finish(self) -> None:
        """All leases run out and all time passes: every job reaches its end, and nothing is left behind."""
        self.renewer.close()
        self.do(self.broker.resume(QUEUE))
        self.clock += 1_000
        last = Worker(self.broker, "last")
        for worker in self.workers:
            self.do(self.broker.leave(QUEUE, worker.name))
        self.promote()
        for _ in range(2 * len(self.jobs) + 30):
            self.do(last.sweep(100, 100))
            self.do(last.take(100))
            for each in last.held:
                assert self.jobs[each.job_id].ends == 0
                self.jobs[each.job_id].ended(State.SUCCESS)
            replies = self.do(last.turn([(each, done()) for each in last.held])).replies
            assert set(replies) <= {"ok"}
            if not self.unfinished():
                break
        assert [known.ends for known in self.jobs.values()] == [1] * len(self.jobs)
        for name in self.jobs:
            assert self.look.record(name) is not None
        self.look.assert_clean()
        assert [key for key in self.client.scan_iter(f"*{self.namespace}*") if self.stays(key)] == []

    def stays(self, key: bytes) -> bool:
        name = key.decode().rpartition("}:")[2]
        return self.client.ttl(key) == -1 and not name.startswith(PERMANENT)
