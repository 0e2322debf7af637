"""An arena whose server is a set: watched by Sentinels, or a Cluster, whose masters fail and whose slots move."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from streamq import StreamQ
from streamq.broker.broker import Broker
from streamq.broker.keys import Keys
from streamq.core.options import AppOptions
from streamq.errors import NotDurable
from tests.conftest import leaked
from tests.faults import figures
from tests.faults.arena import QUEUE, Arena
from tests.faults.checker import Verdict, evidence, judge
from tests.faults.ledger import ACKED, COMMIT, FAULT, INTENT, START, Entry
from tests.faults.seeds import FOLDER, PASSED
from tests.faults.tasks import LEASE
from tests.topologies import ClusterSet, Node, SentinelSet
from tests.worker.waits import until

PAUSE = 0.02  # seconds between two calls of a producer
STRIKES = 0.1  # seconds from the line in the ledger until a fault has happened
FORGETFUL = ("twice", "overstarted", "overlapping", "stale")
Servers = SentinelSet | ClusterSet


class SetArena(Arena):
    """`home` is the server that has a queue now. There is no proxy: the servers themselves fail."""

    def __init__(self, servers: Servers, folder: Path, dice: random.Random) -> None:
        namespace = f"f{dice.getrandbits(48):012x}"
        super().__init__(servers.nodes[0].url, cast(Any, None), namespace, folder, dice)
        self.url, self.servers = servers.url, servers

    def app(self, *, direct: bool = True, **settings: Any) -> StreamQ[Any]:
        return super().app(direct=direct, **settings)

    def home(self, queue: str = QUEUE) -> Node:
        if isinstance(self.servers, ClusterSet):
            return self.servers.owner(Keys(self.namespace, queue).jobs)
        # The Sentinel that carries a failover out has the new epoch, and names the old master until all is done.
        views = [view for view in self.servers.views() if "failover_in_progress" not in view["flags"]]
        return self.servers.at(int(max(views, key=lambda view: int(view["config-epoch"]))["port"]))

    def fault(self, node: Node, how: signal.Signals) -> int:
        """Kill or stop a server; when that was (ns)."""
        at = self.note_fault(how.name)
        node.signal(how)
        return at

    def note_fault(self, what: str) -> int:
        self.ledger.note(FAULT, what)
        return self.entries(FAULT)[-1].at

    def replicated(self, queue: str = QUEUE) -> None:
        """Wait until every replica has what the master of a queue has.

        A master takes one for online as much as a second before it goes on sending it what is new.
        """
        home = self.home(queue)
        replicas = home.call("INFO", "replication")["connected_slaves"]
        home.call("SET", Keys(self.namespace, queue).prefix + "probe", "", "PX", 1)
        assert home.call("WAIT", replicas, 5000) == replicas

    @asynccontextmanager
    async def busy(self, app: StreamQ[Any], queue: str = QUEUE, **options: Any) -> AsyncIterator[None]:
        """Two worker processes, and callers who go on whatever happens; when the block ends, so do all jobs.

        A call that is refused as not durable was not acknowledged; whatever else one raises ends the test.
        """

        async def produce(name: str) -> None:
            for number in itertools.count():
                with suppress(NotDurable):
                    key, seconds = f"{queue}-{name}{number}", self.dice.uniform(0.01, 0.1)
                    await self.enqueue(app, "work", key, seconds, queue=queue, **options)
                await asyncio.sleep(PAUSE)

        await asyncio.to_thread(self.replicated, queue)
        async with self.crew() as crew:
            for _ in range(2):
                await crew.start()
            async with asyncio.TaskGroup() as callers:
                tasks = [callers.create_task(produce(name)) for name in "abcd"]
                await self.more()
                yield
                for task in tasks:
                    task.cancel()
            await self.settled(queue)
            assert await crew.stop() == [0, 0]
            self.words = [crew.words(hand) for hand in crew.hands]

    async def more(self, jobs: int = 30, within: float = 20.0) -> None:
        """So many more jobs come to their end."""
        await self.seen(COMMIT, len(self.entries(COMMIT)) + jobs, within=within)

    async def back_after(self, at: int, what: str, within: float = 20.0) -> float:
        """Seconds from `at` (ns) until a call that began later is acknowledged and such a job starts."""

        def first(event: str) -> list[Entry]:
            meant = {entry.key for entry in self.entries(INTENT) if entry.at > at}
            return [entry for entry in self.entries(event) if entry.at > at and entry.key in meant][:1]

        await until(lambda: bool(first(ACKED) and first(START)), within)
        called = self.measured(f"from {what} to the next acknowledged call", (first(ACKED)[0].at - at) / 1e9)
        started = self.measured(f"from {what} to the next start of a job", (first(START)[0].at - at) / 1e9)
        return max(called, started)

    def silence(self, at: int) -> float:
        """Seconds of the longest time without a start since `at` (ns)."""
        times = [at, *(entry.at for entry in self.entries(START) if entry.at > at)]
        return max(after - before for before, after in pairwise(times)) / 1e9

    async def settled(self, queue: str = QUEUE, within: float = 30.0) -> None:
        """Wait until nothing of a queue is unfinished."""
        jobs, home = Keys(self.namespace, queue).jobs, self.home(queue)
        await until(lambda: not home.call("EXISTS", jobs), within)

    async def verdict(self, queue: str = QUEUE) -> Verdict:
        """Of everything so far in this queue, as the server says that has it now. Every worker has ended."""
        home, entries = self.home(queue), [entry for entry in self.entries() if self._is(entry, queue)]
        broker = Broker(home.url, AppOptions(namespace=self.namespace))
        try:
            with home.client() as client:
                seen = await evidence(broker, client, queue, entries)
        finally:
            await broker.close()
        for node in self.servers.nodes:
            if node is not home and node.call("ROLE")[0] == "master":
                with node.client(decode_responses=True) as client:
                    seen.left += leaked(client, self.namespace)
        return judge(seen)

    async def verdict_after(self, fault: int, before: float, after: float = STRIKES, queue: str = QUEUE) -> Verdict:
        """What was written in these seconds about a fault (ns) may be lost, and what was under way; nothing else."""
        verdict = await self.verdict(queue)
        # What was forgotten may have been a job, its start, or its end: then it ended a second time.
        verdict.assert_base(but=["lost", *FORGETFUL])
        late = [entry for entry in self.entries() if -before <= (entry.at - fault) / 1e9 <= after]
        meant = {entry.key for entry in late if entry.event == INTENT}
        excused = {entry.job_id for entry in late} | {e.job_id for e in self.entries(ACKED) if e.key in meant}
        early = set(verdict.lost) - {entry.key for entry in late if entry.event == ACKED}
        again = {job for name in FORGETFUL for job in getattr(verdict, name)} - excused
        assert early | again == set(), self.story(early | again, fault)
        self.measured("acknowledged jobs that were lost", len(verdict.lost), "")
        self.measured("jobs that were completed twice", len(verdict.twice), "")
        return verdict

    def story(self, names: set[str], fault: int) -> str:
        """What the ledgers say of these keys and jobs, in seconds from a fault."""
        ids = {entry.job_id for entry in self.entries(ACKED) if entry.key in names} | names
        told = [entry for entry in self.entries() if entry.job_id in ids or entry.key in names]
        return "\n".join(f"{(e.at - fault) / 1e9:+.3f} {e.event} {e.key} {e.job_id} of {e.pid}" for e in told)

    @property
    def server(self) -> str:
        facts = self.servers.nodes[0].call("INFO", "server")
        valkey = facts.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {facts['redis_version']}"


On = Callable[..., SetArena]


@pytest.fixture(scope="module")
def running() -> Iterator[Callable[..., Servers]]:
    """The sets that were asked for, until the end of the module, for each takes seconds to start."""
    started: dict[str, Servers] = {}
    with ExitStack() as stack:

        def servers(make: type[SentinelSet] | type[ClusterSet], kind: str, **settings: Any) -> Servers:
            name = f"{make.__name__} {kind} {settings}"
            if name in started:
                started[name].settle()
            else:
                started[name] = stack.enter_context(make(kind, **settings))
            return started[name]

        yield servers


@pytest.fixture
async def on(
    request: pytest.FixtureRequest, running: Callable[..., Servers], tmp_path: Path, dice: random.Random
) -> AsyncIterator[On]:
    """An arena on a set: `on(SentinelSet, "redis")`."""
    request.node.stash[FOLDER] = tmp_path
    made: list[SetArena] = []

    def arena(make: type[SentinelSet] | type[ClusterSet], kind: str, **settings: Any) -> SetArena:
        made.append(SetArena(running(make, kind, **settings), tmp_path, dice))
        return made[-1]

    yield arena
    for each in made:
        if figures.FILE and request.node.stash.get(PASSED, False):
            figures.write(request.node.originalname, each.figures, each.server, LEASE)
        await each.close()
