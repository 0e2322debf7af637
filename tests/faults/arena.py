"""What a fault test needs in one place: a server, a proxy before it, the application, the ledger, and the verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis

from streamq import Job, StreamQ
from streamq.broker.history import History, Transition
from streamq.broker.keys import Keys
from tests.faults.checker import Verdict, evidence, judge
from tests.faults.crew import Crew, Spec
from tests.faults.ledger import ABORT, ACKED, END, FAULT, INTENT, START, Entry, Reader, ledger_of
from tests.faults.proxy import FaultProxy
from tests.faults.tasks import LEASE, application
from tests.worker.waits import until

RECOVERY = 1.25 * LEASE + 1.0  # the promise
PATIENCE = 3.0  # seconds that two busy cores may add to it
QUEUE = "default"


class Arena:
    """One server's. `app` goes through the proxy; `crew` are processes that do, or not (`direct=True`)."""

    def __init__(self, url: str, proxy: FaultProxy, namespace: str, folder: Path, dice: random.Random) -> None:
        self.url, self.proxy, self.namespace, self.folder, self.dice = url, proxy, namespace, folder, dice
        self.ledger = ledger_of(folder)
        self.client = redis.Redis.from_url(url)
        self._apps: list[StreamQ[Any]] = []
        self._queues: dict[str, str] = {}  # by key and by job id
        self.figures: list[tuple[str, float, str]] = []
        self._reader, self._entries = Reader(folder), list[Entry]()

    def app(self, *, direct: bool = False, **settings: Any) -> StreamQ[Any]:
        """A new application, closed at the end of the test."""
        url = self.url if direct else self.proxy.url
        self._apps.append(application(url, self.namespace, self.folder, **settings))
        return self._apps[-1]

    def crew(self, *, direct: bool = True, **spec: Any) -> Crew:
        return Crew(Spec(self.url if direct else self.proxy.url, self.namespace, self.folder, **spec))

    async def enqueue(self, app: StreamQ[Any], task: str, key: str, *args: object, **options: Any) -> Job[Any]:
        """With a line before and a line after."""
        queue = self._queues[key] = options.get("queue", QUEUE)
        self.ledger.note(INTENT, key)
        job = await app.tasks[task].s(key, *args).using(**options).enqueue()
        self._queues[job.id] = queue
        self.ledger.note(ACKED, key, job.id)
        return job

    async def enqueue_many(self, app: StreamQ[Any], task: str, keys: Iterable[str], *args: object) -> list[Job[Any]]:
        keys = list(keys)
        self.ledger.note_all(INTENT, [(key, "-") for key in keys])
        jobs = await app.enqueue_many(app.tasks[task].s(key, *args) for key in keys)
        self.ledger.note_all(ACKED, [(key, job.id) for key, job in zip(keys, jobs, strict=True)])
        return jobs

    def entries(self, event: str = "", *, key: str = "") -> list[Entry]:
        """What the ledgers hold so far, in the order in which it happened."""
        self._entries = sorted([*self._entries, *self._reader.news()], key=lambda entry: entry.at)
        return [e for e in self._entries if event in ("", e.event) and key in ("", e.key)]

    async def seen(self, event: str, count: int = 1, *, key: str = "", within: float = 20.0) -> list[Entry]:
        """Wait until the ledgers hold so many."""
        async with asyncio.timeout(within):
            while len(found := self.entries(event, key=key)) < count:
                await asyncio.sleep(0.01)
        return found

    async def running(self, pid: int, number: int = 1) -> None:
        """Wait until a process runs so many jobs."""

        def runs() -> int:
            mine = [entry.event for entry in self.entries() if entry.pid == pid]
            return mine.count(START) - mine.count(END) - mine.count(ABORT)

        await until(lambda: runs() >= number, 20)

    def next_after(self, at: int, event: str = START) -> float:
        """Seconds from `at` (ns) to the next such event."""
        return min(entry.at - at for entry in self.entries(event) if entry.at > at) / 1e9

    def measured(self, what: str, value: float, unit: str = "s") -> float:
        """Keep it for the table in docs/reliability.md, if this run is for that: see `figures`."""
        self.figures.append((what, value, unit))
        return value

    async def settled(self, queue: str = QUEUE, within: float = 30.0) -> None:
        """Wait until nothing of a queue is unfinished."""
        jobs = Keys(self.namespace, queue).jobs
        await until(lambda: not self.client.exists(jobs), within)

    async def history(self, queue: str = QUEUE) -> list[Transition]:
        """What Redis remembers of a queue, the newest first."""
        app = self.app(direct=True)
        async with app:
            return [each async for each in History(app.broker).backward(queue)]

    async def verdict(self, queue: str = QUEUE) -> Verdict:
        """Of everything so far in this queue. Every worker has ended."""
        app = self.app(direct=True)
        async with app:
            return judge(
                await evidence(app.broker, self.client, queue, [e for e in self.entries() if self._is(e, queue)])
            )

    def _is(self, entry: Entry, queue: str) -> bool:
        known = self._queues.get(entry.job_id) or self._queues.get(entry.key, QUEUE)
        return entry.event == FAULT or known == queue

    async def close(self) -> None:
        for app in self._apps:
            await app.close()
        self.client.close()


@asynccontextmanager
async def arena(url: str, folder: Path, dice: random.Random) -> AsyncIterator[Arena]:
    async with FaultProxy(url, dice) as proxy:
        made = Arena(url, proxy, f"f{dice.getrandbits(48):012x}", folder, dice)
        try:
            yield made
        finally:
            await made.close()
            await asyncio.sleep(0)
