"""Worker processes that are forked ready-made, in 30 ms, so that a test can afford to kill many."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from tests.faults.ledger import FAULT, Ledger, ledger_of
from tests.faults.tasks import application
from tests.worker.waits import until

FORKS: ForkServerContext = multiprocessing.get_context("forkserver")
# pytest is there because its script, the main program, is imported again in each child.
FORKS.set_forkserver_preload(["pytest", "redis.asyncio", "uvloop", "streamq.worker.app", __name__])


@dataclass(frozen=True)
class Spec:
    url: str
    namespace: str
    folder: Path
    concurrency: int = 16
    grace: float = 10.0
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    build: Any = application  # a function of a module
    stall_leases: float = 0.0


def live(spec: Spec) -> None:
    """What a worker process does."""
    logging.basicConfig(filename=spec.folder / f"{os.getpid()}.log", level=logging.INFO)
    asyncio.run(_live(spec))


async def _live(spec: Spec) -> None:
    app = spec.build(spec.url, spec.namespace, spec.folder, **spec.settings)
    worker = app.worker(handle_signals=True, concurrency=spec.concurrency, grace=spec.grace)

    def up(_: object) -> None:
        if spec.stall_leases:
            worker.crew.heartbeat.stall_leases = spec.stall_leases
        (spec.folder / f"{os.getpid()}.up").touch()

    app.on("worker.started")(up)
    async with app:
        await worker.run()


@dataclass
class Hand:
    """One worker process."""

    process: ForkServerProcess
    pid: int
    ledger: Ledger

    def signal(self, number: signal.Signals) -> None:
        """One that has ended by itself is no reason to fail."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; what it was doing has ended with this line."""
        self.process.kill()
        self.process.join()
        self.ledger.note(FAULT, f"kill-{self.pid}")

    async def ended(self, within: float = 15.0) -> int:
        """Its exit code."""
        await until(lambda: not self.process.is_alive(), within)
        assert self.process.exitcode is not None
        return self.process.exitcode


class Crew:
    """The worker processes of one test; those that are left are killed at the end.

    async with Crew(spec) as crew:
        hand = await crew.start()
        hand.kill()
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.hands: list[Hand] = []
        self._ledger = ledger_of(spec.folder)

    async def start(self, **changes: Any) -> Hand:
        """One more, ready to work."""
        hand = self.begin(**changes)
        up = self.spec.folder / f"{hand.pid}.up"
        await until(lambda: up.exists() or not hand.process.is_alive(), 20)
        assert hand.process.is_alive(), self.words(hand)
        return hand

    def begin(self, **changes: Any) -> Hand:
        """One more, which is not waited for."""
        process = FORKS.Process(target=live, args=(replace(self.spec, **changes),), daemon=True)
        process.start()
        assert process.pid is not None
        self.hands.append(Hand(process, process.pid, self._ledger))
        return self.hands[-1]

    def words(self, hand: Hand) -> str:
        log = self.spec.folder / f"{hand.pid}.log"
        return log.read_text() if log.exists() else ""

    async def stop(self) -> list[int]:
        """SIGTERM to all, and their exit codes."""
        alive = [hand for hand in self.hands if hand.process.is_alive()]
        for hand in alive:
            hand.signal(signal.SIGTERM)
        return [await hand.ended() for hand in alive]

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        for hand in self.hands:
            hand.process.kill()
            hand.process.join()
