"""One run from the first worker to the verdict: load and faults, the queue drains, the books are compared."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from streamq.cli.chaos import findings, tasks
from streamq.cli.chaos.conduct import Conductor
from streamq.cli.chaos.findings import Findings
from streamq.cli.chaos.gauges import Gauges
from streamq.cli.chaos.load import PER_SLOT, RATE, Producer
from streamq.cli.chaos.report import PRODUCER
from streamq.cli.chaos.schedule import CATALOGUE, Fault, Kind, schedule
from streamq.cli.chaos.server import Server
from streamq.cli.chaos.watching import Watch
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.trial import evidence
from streamq.cli.trial.crew import Crew, last_words
from streamq.cli.trial.judge import Recovered
from streamq.cli.trial.ledger import Ledger
from streamq.cli.trial.screen import Display, View
from streamq.errors import BrokerError
from streamq.worker.app import StreamQ

ROUND: Final = 120.0  # seconds; a longer run is judged every now and then, so that nothing grows with its length
DRAINS_WITHIN: Final = (30.0, 20.0)  # seconds, and leases beside them
TIDY_WITHIN: Final = (5.0, 20.0)
STOP_WITHIN: Final = 15.0  # seconds
COLLECT_WITHIN: Final = 30.0
LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `target` is the application that the workers run."""

    seconds: float
    workers: int
    concurrency: int
    seed: int
    lease: float
    kinds: frozenset[Kind]
    target: str = "streamq.cli.chaos.tasks:app"

    @property
    def slots(self) -> int:
        """Jobs that may run at once."""
        return self.workers * self.concurrency

    @property
    def faults(self) -> list[Fault]:
        """All that will happen."""
        return schedule(self.seed, self.seconds, workers=self.workers, lease=self.lease, kinds=self.kinds)

    def within(self, seconds: float, leases: float) -> float:
        """So many seconds and leases."""
        return seconds + leases * self.lease


@dataclass(slots=True)
class Run:
    """What the steps share. `found` grows from the first round on; `server` is one that may be killed."""

    plan: Plan
    app: StreamQ[Any]
    crew: Crew
    book: Ledger
    watch: Watch
    display: Display
    found: Findings
    server: Server | None = None
    keep: bool = False  # the books are not emptied between rounds
    gauges: Gauges = field(default_factory=Gauges)
    _begun: float = field(default_factory=time.monotonic)
    _upto: float = 0.0  # seconds of the plan that are over when the present round ends
    _round_ends: float = 0.0
    _outages: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    _disturbed: int = 0  # recoveries in which the next fault struck
    _recoveries: list[Recovered] = field(default_factory=list[Recovered])
    _striking: asyncio.Lock = field(default_factory=asyncio.Lock)  # the server, one fault at a time
    _background: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _producer: Producer = field(init=False)
    _conductor: Conductor = field(init=False)

    @property
    def view(self) -> View:
        """What is shown."""
        return self.display.view

    # ---- the steps -----------------------------------------------------------------------------------

    async def play(self) -> None:
        """All of it. Raises `Stopped` if the workers do not start."""
        before = await self._server_mib()
        self._hire()
        self._background.append(asyncio.create_task(self._show()))
        if not await self._meanwhile(self._conductor.staffed()):
            raise Stopped(self._unstaffed(), Exit.FAILED)
        self._begun = self.view.started = time.monotonic()
        faults = self.plan.faults
        begins = 0.0
        while True:
            ends = min(begins + ROUND, self.plan.seconds)
            await self._round([_later(fault, -begins) for fault in faults if begins <= fault.at < ends], ends - begins)
            if ends == self.plan.seconds or not self.found.ok:
                break
            await self._forget()
            begins = ends
        self.found.growth = self.gauges.grown()
        self.view.news = "the workers are told to stop"
        for hand in await self._meanwhile(self.crew.stop(STOP_WITHIN)):
            code = hand.process.returncode
            how = "did not end" if code is None else f"ended with code {code}"
            self.found.broken.append(f"worker {hand.number} {how} at SIGTERM: {last_words(hand.log)}")
        await self.end()
        if before is not None:
            await evidence.sweep(self.app.broker)
            after = await self._server_mib()
            self.found.server_mib = (before, after or 0.0)

    async def abandon(self) -> None:
        """In the middle: no more faults, no workers, and what can be said of what was."""
        self.found.complete = False
        self.view.news = "stopped: the verdict of what was"
        await self.end()
        if self.server is not None:
            await self.server.revive()
        self.crew.end()
        try:
            async with asyncio.timeout(COLLECT_WITHIN):
                await self._judge()
        except (BrokerError, TimeoutError) as error:
            self.found.broken.append(f"Redis could not be asked for the records: {error}")

    # ---- how -----------------------------------------------------------------------------------------

    def _hire(self) -> None:
        rate = min(RATE, PER_SLOT * self.plan.slots)
        dice = random.Random(f"load {self.plan.seed}")
        most = max(500, 4 * self.plan.slots)
        self._producer = Producer(self.book, dice, rate, self.plan.lease, most, self.watch.waiting)
        self._conductor = Conductor(
            self.crew,
            self.plan.workers,
            self.book,
            self._tell,
            up=self.watch.up,
            held=self.watch.held,
            others={
                Kind.POISON: self._poison,
                Kind.FLUSH: self._flush,
                Kind.SERVER_KILL: self._server_kill,
                Kind.SERVER_STOP: self._server_stop,
            },
            poisoned=tasks.POISONED,
        )

    async def _round(self, faults: list[Fault], seconds: float) -> None:
        ends = self._round_ends = time.monotonic() + seconds
        self._upto += seconds
        self.view.news = ""
        producing = asyncio.create_task(self._producer.run())
        self._background.append(producing)
        await self._meanwhile(self._conductor.play(faults))
        await self._meanwhile(self._conductor.watch(ends))
        self._background.remove(producing)
        producing.cancel()
        self.view.news = "no more faults: the queue drains"
        await self._meanwhile(self._conductor.finish())
        await self._meanwhile(self._producer.settle())
        if not await self._meanwhile(self._drained()):
            within = self.plan.within(*DRAINS_WITHIN)
            self.found.broken.append(f"the queue did not drain within {within:g} s; its unfinished jobs are in Redis")
        elif strangers := await self._meanwhile(self._strangers()):
            self.found.left_behind += len(strangers)
            self.found.broken.append(
                f"{len(strangers)} consumers are of no live worker: {', '.join(sorted(strangers))}"
            )
        self.view.news = "the books are compared with the records in Redis"
        await self._judge()

    async def _forget(self) -> None:
        """What was judged: nothing grows with the length of a run."""
        await evidence.forget(self.app.broker, tasks.QUEUE, {entry.job_id for entry in self.watch.entries})
        await self._meanwhile(self._conductor.staffed())  # nobody writes to a book any more
        self.watch.next_round(emptied=not self.keep)

    async def _drained(self) -> bool:
        jobs = self.app.broker.keys(tasks.QUEUE).jobs
        ends = time.monotonic() + self.plan.within(*DRAINS_WITHIN)
        while await self.app.broker.command("EXISTS", jobs):
            if time.monotonic() > ends:
                return False
            await self._conductor.watch(time.monotonic() + LOOK)
        return True

    async def _strangers(self) -> set[str]:
        """Consumers of workers that are no more: they go when what they said of themselves has expired."""
        ends = time.monotonic() + self.plan.within(*TIDY_WITHIN)
        while True:
            alive = {f"worker-{place.hand.number}" for place in self._conductor.places}
            found = await evidence.consumers(self.app.broker, tasks.QUEUE) - alive
            if not found or time.monotonic() > ends:
                return found
            await self._conductor.watch(time.monotonic() + LOOK)

    async def _judge(self) -> None:
        self.watch.look()
        entries = sorted(self.watch.entries, key=lambda entry: entry.at)
        seen = await evidence.collect(self.app.broker, tasks.QUEUE, entries)
        verdict = findings.add(self.found, seen)
        quiet = findings.undisturbed(seen, verdict)
        self._recoveries += quiet
        self.found.recovery = findings.recovery(self._recoveries, self._outages, self.plan.lease)
        self._disturbed += len(verdict.recoveries) - len(quiet)
        self.found.recovery.disturbed += self._disturbed
        self.found.unanswered = self._producer.unanswered
        self.found.faults = dict(Counter(fault.kind.value for fault in self._conductor.done).most_common())
        self.found.broken += self._conductor.complaints
        self._conductor.complaints.clear()

    async def _meanwhile(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for one thing; what goes on beside it may fail, and that is raised."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait([task, *self._background], return_when=asyncio.FIRST_COMPLETED)
            for each in done - {task}:
                each.result()
            return await task
        finally:
            task.cancel()

    async def end(self) -> None:
        """Nothing goes on, whatever happened."""
        for each in self._background:
            each.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background.clear()
        if hasattr(self, "_conductor"):
            await self._conductor.cancel()
            await self._producer.cancel()

    async def _server_mib(self) -> float | None:
        if self.server is None:
            return None
        told = await self.app.broker.command("INFO", "memory")
        assert isinstance(told, bytes)
        used = told.partition(b"used_memory:")[2].split()[0]
        return round(int(used) / 2**20, 2)

    def _unstaffed(self) -> Screen:
        hand = self._conductor.places[0].hand
        return Screen("the workers do not start", str(hand.log), last_words(hand.log) or "they say nothing")

    # ---- faults that strike no worker ----------------------------------------------------------------

    async def _poison(self, fault: Fault) -> None:
        self._tell(fault.kind, "a job that takes its worker down is enqueued")
        self._producer.poison()

    async def _flush(self, fault: Fault) -> None:
        async with self._striking:
            self._tell(fault.kind, "SCRIPT FLUSH: the server forgets its scripts")
            await self.app.broker.command("SCRIPT", "FLUSH")

    async def _server_kill(self, fault: Fault) -> None:
        assert self.server is not None
        async with self._striking:
            self._tell(fault.kind, f"kill -9 the server (pid {self.server.pid}), start it after {fault.seconds:.1f} s")
            begun = time.time_ns()
            self.server.kill()
            await asyncio.sleep(fault.seconds)
            await self.server.start()
            self._outages.append((begun, time.time_ns()))

    async def _server_stop(self, fault: Fault) -> None:
        assert self.server is not None
        async with self._striking:
            self._tell(fault.kind, f"SIGSTOP the server (pid {self.server.pid}) for {fault.seconds:.1f} s")
            begun = time.time_ns()
            await self.server.stand_still(fault.seconds)
            self._outages.append((begun, time.time_ns()))

    # ---- the screen ----------------------------------------------------------------------------------

    def _tell(self, kind: Kind, what: str) -> None:
        self.display.say(f"{time.monotonic() - self._begun:6.1f} s  {CATALOGUE[kind]}  {what}")

    async def _show(self) -> None:
        self.gauges.look(PRODUCER, os.getpid())
        while True:
            self.watch.look()
            self._update()
            self.display.show()
            await asyncio.sleep(LOOK)

    def _update(self) -> None:
        (bar,) = self.view.phases
        gone = min(self._upto, self._upto - self._round_ends + time.monotonic()) if self._upto else 0.0
        bar.done, bar.left = round(gone * 10), f"{self.plan.seconds - gone:.0f} s left"
        for place in self._conductor.places:
            if place.hand.pid in self.watch.up:
                self.gauges.look(f"worker {place.hand.number}", place.hand.pid)
        done = Counter(fault.kind for fault in self._conductor.done)
        self.view.workers = [
            f"{place.name}  {self.watch.done_by[place.hand.pid]:>6,} jobs" for place in self._conductor.places
        ]
        self.view.counts = {
            "enqueued": self.watch.enqueued,
            "finished": self.watch.finished,
            "recovered": self.watch.recovered,
            "kills": done[Kind.KILL] + done[Kind.HALT],
            "stops": done[Kind.STOP],
            "restarts": done[Kind.RESTART],
        }


def _later(fault: Fault, by: float) -> Fault:
    return Fault(fault.at + by, fault.kind, fault.worker, fault.seconds)
