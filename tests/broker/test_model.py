"""Every transition in any order: the real scripts against a model of a dozen lines.

No job is lost, none is completed twice, each reply is the one that the model expects, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamq.broker import scripts
from streamq.broker.broker import Broker, NewJob
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.keys import PERMANENT
from streamq.broker.wire import encode_record
from streamq.core.job import Delivery, Reason, State
from streamq.core.options import AppOptions
from streamq.core.outcome import Release, Settlement
from tests.broker.byhand import QUEUE, Server, Worker, again, buried, done, job, record, variant

T = TypeVar("T")
WORKERS = st.integers(0, 2)
PICK = st.integers(0, 1_000)
WAYS = st.sampled_from(["complete", "retry", "again", "bury", "release"])
BUDGET = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Known:
    """What the model knows of one job: who holds it, and how often it ended."""

    holder: tuple[str, bytes, int] | None = None
    ends: int = 0


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
        self.names = itertools.count()
        self.added: tuple[list[NewJob], int] | None = None
        self.turned: tuple[Worker, list[tuple[Delivery, Settlement]], list[str], int] | None = None

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.run_async(call)

    @initialize()
    def begin(self) -> None:
        self.do(self.broker.open())

    # ---- producers ----------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 4), priority=st.integers(0, 2), delay=st.sampled_from([0, 0, 50]))
    def add(self, number: int, priority: int, delay: int) -> None:
        jobs = [job(f"j{next(self.names)}", priority=priority, delay=delay) for _ in range(number)]
        placed = self.do(self.broker.add(QUEUE, jobs))
        assert [each.status for each in placed] == ["new"] * number
        self.jobs |= {each.job_id: Known() for each in jobs}
        following = next(self.broker._requests)  # pyright: ignore[reportPrivateUsage]
        self.added = (jobs, following - 1)

    @precondition(lambda self: self.added is not None)
    @rule()
    def add_is_sent_again(self) -> None:
        assert self.added is not None
        jobs, request = self.added
        later = self.broker._requests  # pyright: ignore[reportPrivateUsage]
        self.broker._requests = itertools.count(request)  # pyright: ignore[reportPrivateUsage]
        placed = self.do(self.broker.add(QUEUE, jobs))
        self.broker._requests = later  # pyright: ignore[reportPrivateUsage]
        assert [each.status for each in placed] == ["new"] * len(jobs)

    @precondition(lambda self: self.unfinished())
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        name = self.unfinished()[pick % len(self.unfinished())]
        end = encode_record(record(State.CANCELLED))
        answer = self.do(self.broker.cancel(QUEUE, name, "why", end, 60_000))
        known = self.jobs[name]
        assert answer == ("cancelled" if known.holder is None else "cancelling")
        known.ends += answer == "cancelled"

    # ---- workers ------------------------------------------------------------------------------------------

    @rule(number=WORKERS, want=st.integers(0, 4))
    def fetch(self, number: int, want: int) -> None:
        self.hold(self.workers[number], self.do(self.workers[number].take(want)), want)

    @rule(number=WORKERS, want=st.integers(1, 4), suspects=st.integers(0, 2))
    def sweep(self, number: int, want: int, suspects: int) -> None:
        worker = self.workers[number]
        self.hold(worker, self.do(worker.sweep(want, suspects)), want)
        self.look_at_holders()

    def hold(self, worker: Worker, taken: list[Delivery], want: int) -> None:
        assert len(taken) <= want
        for each in taken:
            known = self.jobs[each.job_id]
            assert known.ends == 0
            known.holder = (worker.name, each.entry, each.count)

    def look_at_holders(self) -> None:
        # A suspect that the sweep took and handed back belongs to nobody; the script alone knows which.
        for name, known in self.jobs.items():
            if known.holder and self.do(self.broker.find(QUEUE, name)).consumer == "nobody":
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
        pairs = [(delivery, self.settlement(delivery, way)) for delivery, way in ways]
        expected = [self.jobs[each.job_id].holder == (worker.name, each.entry, each.count) for each, _ in pairs]
        replies = self.do(worker.turn(pairs)).replies
        assert [reply == "ok" for reply in replies] == expected
        for (delivery, way), reply in zip(ways, replies, strict=True):
            if reply == "ok":
                self.jobs[delivery.job_id].holder = None
                self.jobs[delivery.job_id].ends += way in ("complete", "bury")
        if "ok" in replies:
            self.turned = (worker, pairs, replies, worker.request)

    def settlement(self, delivery: Delivery, way: str) -> Settlement:
        match way:
            case "complete":
                return done()
            case "bury":
                return buried(delivery, Reason.FAILED)
            case "retry":
                return again(delivery, 20)
            case "again":
                return again(delivery)
            case _:
                return Release()

    @precondition(lambda self: self.turned is not None)
    @rule()
    def turn_is_sent_again(self) -> None:
        assert self.turned is not None
        worker, pairs, replies, request = self.turned
        newest = worker.request
        repeated = self.do(worker.turn(pairs, request=request)).replies
        assert "ok" not in repeated
        if request == newest:  # an older one is late: it is told that all is gone
            assert repeated == ["dup" if each == "ok" else each for each in replies]

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
        self.turned = None  # its answers went with it
        self.zombies += [(worker, each) for each in worker.held]
        worker.held = []
        for known in self.jobs.values():
            if known.holder and known.holder[0] == worker.name:
                known.holder = None

    @precondition(lambda self: self.deliveries())
    @rule(pick=PICK)
    def lease_runs_out(self, pick: int) -> None:
        self.look.expire(self.deliveries()[pick % len(self.deliveries())])

    @rule(ms=st.sampled_from([1, 30, 100]))
    def time_passes(self, ms: int) -> None:
        self.clock += ms
        self.do(self.broker.promote(QUEUE))
        self.do(self.broker.tidy(QUEUE))

    # ---- what always holds ------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        return [name for name, known in self.jobs.items() if not known.ends]

    def anybody(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.held]

    def deliveries(self) -> list[Delivery]:
        return [each for worker in self.workers for each in worker.held] + [each for _, each in self.zombies]

    @invariant()
    def no_job_is_lost_and_none_is_there_twice(self) -> None:
        assert set(self.look.unfinished()) == set(self.unfinished())
        waiting = int(self.client.zcard(self.look.keys.due))
        assert self.look.lengths() + waiting == len(self.unfinished())
        assert int(self.client.hlen(self.look.keys.body)) == waiting

    @invariant()
    def no_job_ends_twice(self) -> None:
        assert all(known.ends <= 1 for known in self.jobs.values())

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
        self.clock += 1_000
        last = Worker(self.broker, "last")
        for worker in self.workers:
            self.do(self.broker.leave(QUEUE, worker.name))
        self.do(self.broker.promote(QUEUE))
        for _ in range(2 * len(self.jobs) + 30):
            self.do(last.sweep(100, 100))
            self.do(last.take(100))
            for each in last.held:
                assert self.jobs[each.job_id].ends == 0
                self.jobs[each.job_id].ends += 1
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


def test_any_order_of_everything(server: EmbeddedServer) -> None:
    with asyncio.Runner() as runner:
        run_state_machine_as_test(lambda: Machine(server.url, runner), settings=BUDGET)


def test_the_model_finds_a_missing_fence(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = variant("turn", ("  if seen ~= b[n + COUNT] then return 'f' end\n", ""))
    monkeypatch.setitem(scripts.SCRIPTS, "turn", cut)
    unshrunk = settings(BUDGET, max_examples=200, derandomize=True, phases=[Phase.generate])
    with asyncio.Runner() as runner, pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(lambda: Machine(server.url, runner), settings=unshrunk)
