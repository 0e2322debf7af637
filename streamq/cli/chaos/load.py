"""The jobs of a run: enqueued at a steady rate, of every kind, never too far ahead of the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from streamq.cli.chaos import tasks
from streamq.cli.trial.ledger import ACKED, INTENT, Ledger
from streamq.client.partial import Signature
from streamq.errors import BrokerUnavailable

KINDS: Final = {"plain": 64, "flaky": 10, "pair": 5, "delayed": 10, "parent": 10, "long": 1}  # in a hundred
SHORT: Final = (0.005, 0.05)  # seconds
LONG: Final = (0.3, 1.2)  # leases
DELAY: Final = (0.2, 2.0)  # leases, of a second at most
PER_SLOT: Final = 8.0  # jobs a second for each job that may run at once: a fifth of what the workers could
RATE: Final = 400.0  # jobs a second at most
TICK: Final = 0.02  # seconds

Call = tuple[str, Signature[Any]]


@dataclass(slots=True)
class Producer:
    """Enqueues until it is told to stop. `waiting` says how many jobs are unfinished, `most` how many may be."""

    book: Ledger
    dice: random.Random
    rate: float
    lease: float
    most: int
    waiting: Callable[[], int]
    unanswered: int = 0  # calls that Redis did not answer in time
    _sending: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _calls: Iterator[int] = field(default_factory=count)

    async def run(self) -> None:
        """Go on until it is cancelled."""
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        while True:
            await asyncio.sleep(TICK)
            due = int((loop.time() - begun) * self.rate) - sent
            free = self.most - self.waiting() - len(self._sending)
            for _ in range(min(due, free)):
                self._send(self._calls_of_one())
            sent += due  # what found no room is not made up for

    def poison(self) -> None:
        """One job that kills its worker."""
        key = f"poison-{next(self._calls)}"
        self._send([(key, tasks.poison.s(key, self.dice.uniform(0.02, 0.2)))])

    async def settle(self) -> None:
        """Wait for the answers to what was sent."""
        while self._sending:
            await asyncio.gather(*self._sending)

    async def cancel(self) -> None:
        """Wait for nothing."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _calls_of_one(self) -> list[Call]:
        (kind,) = self.dice.choices(list(KINDS), list(KINDS.values()))
        key, seconds = f"{kind}-{next(self._calls)}", self.dice.uniform(*SHORT)
        match kind:
            case "flaky":
                return [(key, tasks.flaky.s(key, seconds, self.dice.choice((1, 2))))]
            case "pair":
                return [(key, tasks.work.using(idempotency_key=key).s(key, seconds))] * 2
            case "delayed":
                return [
                    (key, tasks.work.using(countdown=min(1.0, self.lease) * self.dice.uniform(*DELAY)).s(key, seconds))
                ]
            case "parent":
                return [(key, tasks.parent.s(key, seconds))]
            case "long":
                return [(key, tasks.work.s(key, self.lease * self.dice.uniform(*LONG)))]
            case _:
                return [(key, tasks.work.s(key, seconds))]

    def _send(self, calls: list[Call]) -> None:
        for key, call in calls:
            task = asyncio.create_task(self._enqueue(key, call))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _enqueue(self, key: str, call: Signature[Any]) -> None:
        self.book.note(INTENT, key)
        try:
            job = await call.enqueue()
        except BrokerUnavailable:
            self.unanswered += 1
        else:
            self.book.note(ACKED, key, job.id)
