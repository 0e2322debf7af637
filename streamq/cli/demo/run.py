"""One run of the demo, step by step: burst, mixture with a kill, single jobs, and the evidence."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamq.cli.demo import tasks
from streamq.cli.demo.load import Load, probes
from streamq.cli.demo.tally import Seen, kind, unfinished
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.trial import evidence
from streamq.cli.trial.crew import Crew, Hand, worker_command
from streamq.cli.trial.ledger import ACKED, END, FAIL, FAULT, INTENT, START, Entry, Ledger, Reader
from streamq.cli.trial.screen import Display, Phase, View
from streamq.client.handle import Job
from streamq.client.partial import Signature
from streamq.worker.app import StreamQ

LOOK: Final = 0.02  # seconds between two looks into the books
CONCURRENCY: Final = 40
STOP_WITHIN: Final = 8.0  # seconds
BATCH: Final = 500

Calls = Sequence[tuple[str, Signature[Any]]]


def worker(number: int) -> list[str]:
    """The command line of the n-th worker."""
    named = ("-c", str(CONCURRENCY), "-l", "warning", "--name", f"worker-{number}")
    return worker_command("streamq.cli.demo.tasks:app", "-Q", tasks.QUEUE, *named)


@dataclass(slots=True)
class Run:
    """What the steps share."""

    app: StreamQ[Any]
    crew: Crew
    book: Ledger
    reader: Reader
    display: Display
    load: Load
    seen: Seen = field(default_factory=Seen)
    runs: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    ended: set[str] = field(default_factory=set[str])
    jobs: dict[str, Job[Any]] = field(default_factory=dict[str, Job[Any]])
    done_by: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # pid -> jobs ended

    @property
    def view(self) -> View:
        """What is shown."""
        return self.display.view

    # ---- the steps -----------------------------------------------------------------------------------

    async def play(self) -> None:
        """All of it. The evidence grows in `seen` from the first step on."""
        for _ in range(2):
            self.crew.start()
        await self._staffed(2, "two workers start")
        await self._burst(self.view.phases[0])
        await self._mixture(self.view.phases[1])
        await self._probes(self.view.phases[2])
        self.view.news = "the workers are told to stop"
        stubborn = await self.crew.stop(STOP_WITHIN)
        self.crew.check()
        for hand in stubborn:
            raise Stopped(Screen(f"worker {hand.number} did not end at SIGTERM", str(hand.log)), Exit.FAILED)

    async def _staffed(self, count: int, news: str) -> None:
        self.view.news = news
        names = {f"worker-{hand.number}" for hand in self.crew.hands if not hand.killed}
        queue = self.app.queue(tasks.QUEUE)
        while len(names & {worker.id for worker in await queue.workers()}) < count:
            self._look()
            await asyncio.sleep(LOOK)

    async def _burst(self, phase: Phase) -> None:
        self.view.news = "as fast as it goes"
        await self._enqueue(self.load.burst)
        await self._until(lambda: phase.done >= phase.total)

    async def _mixture(self, phase: Phase) -> None:
        self.view.news = "jobs of every kind"
        await self._enqueue(self.load.mixed)
        waiting = [asyncio.ensure_future(self._end_of(job)) for job in self._of(self.load.mixed)]
        try:
            await self._until(lambda: phase.done * 5 >= phase.total * 2 and bool(self._busiest()[1]))
            victim, held = self._busiest()
            self.seen.killed.add(victim.pid)
            victim.held = held
            victim.kill()
            self.book.note(FAULT, f"kill-{victim.pid}")
            self.view.news = f"kill -9 {victim.pid}: {held} jobs die with worker {victim.number}; its leases run out"
            self.display.show(now=True)
            self.crew.start()
            await self._until(lambda: all(each.done() for each in waiting))
        finally:
            for each in waiting:
                each.cancel()
        await self._staffed(2, "a new worker takes its place")

    async def _probes(self, phase: Phase) -> None:
        self.view.news = "one job at a time, to measure latency"
        await asyncio.sleep(0.3)  # the workers come to rest
        for key in probes(phase.total):
            self.book.note(INTENT, key)
            job = await tasks.fast.enqueue(key)
            self.book.note(ACKED, key, job.id)
            self.jobs[job.id] = job
            await job.result()
            self._look()
        await self._until(lambda: phase.done >= phase.total)

    # ---- how -----------------------------------------------------------------------------------------

    async def _enqueue(self, calls: Calls) -> None:
        for first in range(0, len(calls), BATCH):
            some = calls[first : first + BATCH]
            self.book.note_all(INTENT, [(key, "-") for key, _ in some])
            made = await self.app.enqueue_many(call for _, call in some)
            self.book.note_all(ACKED, [(key, job.id) for (key, _), job in zip(some, made, strict=True)])
            self.jobs.update((job.id, job) for job in made)
            self._look()

    def _of(self, calls: Calls) -> list[Job[Any]]:
        keys = {key for key, _ in calls}
        ids = [each.job_id for each in self.seen.evidence.entries if each.event == ACKED and each.key in keys]
        return [self.jobs[job_id] for job_id in dict.fromkeys(ids)]

    async def _end_of(self, job: Job[Any]) -> None:
        await job.result(raises=False)
        self.ended.add(job.id)

    async def _until(self, done: Callable[[], bool]) -> None:
        self._look()
        while not done():
            await asyncio.sleep(LOOK)
            self._look()

    def _busiest(self) -> tuple[Hand, int]:
        holding: dict[int, int] = defaultdict(int)
        for runs in self.runs.values():
            for pid in unfinished(runs):
                holding[pid] += 1
        hands = [hand for hand in self.crew.hands if not hand.killed]
        hand = max(hands, key=lambda each: holding[each.pid])
        return hand, holding[hand.pid]

    def _look(self, *, workers: bool = True) -> None:
        """Read the books on, and show what they say."""
        if workers:
            self.crew.check()
        for entry in self.reader.news():
            self.seen.evidence.entries.append(entry)
            if entry.event in (START, FAIL, END):
                self.runs[entry.job_id].append(entry)
            self._counted(entry)
        self.view.phases[1].done = len(self.ended)
        self.view.workers = [self._about(hand) for hand in self.crew.hands]
        self.view.counts["jobs in Redis"] = len(self.jobs)
        self.display.show()

    def _counted(self, entry: Entry) -> None:
        counts = self.view.counts
        if entry.event == FAIL:
            counts["failed attempts"] = counts.get("failed attempts", 0) + 1
        if entry.event != END:
            return
        self.done_by[entry.pid] += 1
        bars = {"burst": self.view.phases[0], "probe": self.view.phases[2]}
        if bar := bars.get(kind(entry.key)):
            bar.done = min(bar.done + 1, bar.total)
        elif kind(entry.key) == "cron":
            counts["cron fired"] = counts.get("cron fired", 0) + 1

    def _about(self, hand: Hand) -> str:
        name = f"worker {hand.number}   pid {hand.pid:<8}"
        if hand.killed:
            return f"{name} killed by SIGKILL with {hand.held} jobs in its hands"
        return f"{name} {self.done_by[hand.pid]:>6,} jobs"

    # ---- the evidence --------------------------------------------------------------------------------

    async def collect(self) -> None:
        """What Redis has recorded of every job."""
        self.view.news = "the books are compared with the records in Redis"
        self._look(workers=False)
        entries = sorted(self.seen.evidence.entries, key=lambda entry: entry.at)
        self.seen.evidence = await evidence.collect(self.app.broker, tasks.QUEUE, entries)
        letters = await self.app.dead_letters(tasks.QUEUE).list(limit=len(self.jobs) + 1)
        self.seen.dead = {letter.job_id for letter in letters}
        self.seen.delays = self.load.delays
