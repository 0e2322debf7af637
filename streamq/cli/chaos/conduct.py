"""Inflicts faults on workers: each place of a crew is struck by one fault at a time, and filled again afterwards."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from streamq.cli.chaos.schedule import Fault, Kind
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.trial.crew import Crew, Hand, Pause, last_words, until
from streamq.cli.trial.judge import KILL
from streamq.cli.trial.ledger import FAULT, Ledger

ENDS_WITHIN: Final = 20.0  # seconds after SIGTERM: longer than any grace here
ENOUGH: Final = 5  # workers that ended by themselves
UP_WITHIN: Final = 60.0  # seconds: a worker waits for a server that is away

Deed = Callable[[Fault], Awaitable[None]]
Strike = Callable[["Place", Fault], Awaitable[None]]  # whoever takes jobs there, while nobody else strikes
Tell = Callable[[Kind, str], None]


@dataclass(slots=True)
class Place:
    """Where a worker belongs: the present one, and who strikes it."""

    number: int
    hand: Hand
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pause: Pause | None = None

    @property
    def name(self) -> str:
        """For people, who count from 1 on."""
        return f"worker {self.number} (pid {self.hand.pid})"


class Conductor:
    """Plays a schedule. `up` are the pids of workers that said they take jobs; `held` counts the jobs of a pid.

    `others` are the deeds that do not concern a worker. `poisoned` is the exit code of a worker that a job took down;
    after `enough` others that ended by themselves it gives up.
    """

    def __init__(
        self,
        crew: Crew,
        size: int,
        book: Ledger,
        tell: Tell,
        *,
        up: set[int],
        held: Callable[[int], int],
        others: Mapping[Kind, Deed] | None = None,
        poisoned: int | None = None,
        enough: int = ENOUGH,
    ) -> None:
        self._crew = crew
        self._book = book
        self._tell = tell
        self._up = up
        self._held = held
        self._poisoned = poisoned
        self._enough = enough
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False
        self._strikes: dict[Kind, Strike] = {Kind.KILL: self._kill, Kind.STOP: self._stop, Kind.HALT: self._halt}
        self._deeds: dict[Kind, Deed] = {Kind.RESTART: self._restart, **(others or {})}
        self.done: list[Fault] = []
        self.complaints: list[str] = []  # workers that ended by themselves, or not as they should
        self.places = [Place(number, crew.start()) for number in range(1, size + 1)]

    async def staffed(self) -> bool:
        """Wait until every place has a worker that takes jobs; whether that came true."""
        return all([await self._ready(place) for place in self.places])

    async def play(self, faults: Iterable[Fault]) -> None:
        """Each at its time, counted from now. One that takes long holds up no other one, unless it strikes the same
        worker."""
        begun = time.monotonic()
        for fault in faults:
            await self.watch(begun + fault.at)
            self._running.add(asyncio.create_task(self._inflict(fault)))

    async def watch(self, upto: float) -> None:
        """Until that time of the monotonic clock: a worker that ended by itself is replaced."""
        while True:
            for place in self.places:
                if not place.hand.alive and not place.lock.locked():
                    self._replace(place)
            for task in [each for each in self._running if each.done()]:
                self._running.remove(task)
                task.result()
            if (left := upto - time.monotonic()) <= 0:
                return
            await asyncio.sleep(min(left, 0.02))

    async def finish(self) -> None:
        """No new faults; those under way come to their end, at once where that is possible."""
        self._closing = True
        self.release()
        while self._running:
            await self.watch(time.monotonic() + 0.05)
        self._closing = False

    def release(self) -> None:
        """Nobody stands still any longer."""
        for place in self.places:
            if place.pause is not None:
                place.pause.end()

    async def cancel(self) -> None:
        """Drop what is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.release()

    # ---- the deeds -----------------------------------------------------------------------------------

    async def _inflict(self, fault: Fault) -> None:
        if strike := self._strikes.get(fault.kind):
            async with self._at(self.places[fault.worker]) as place:
                if place is None:
                    return
                await strike(place, fault)
        else:
            await self._deeds[fault.kind](fault)
        self.done.append(fault)

    @asynccontextmanager
    async def _at(self, place: Place) -> AsyncGenerator[Place | None]:
        """When its turn has come, and its worker takes jobs; None if there are to be no more faults."""
        async with place.lock:
            yield place if not self._closing and await self._ready(place) else None

    async def _kill(self, place: Place, fault: Fault) -> None:
        self._tell(fault.kind, f"kill -9 {place.name}, {self._held(place.hand.pid)} jobs in its hands")
        self._slay(place)
        place.hand = self._crew.start()

    async def _stop(self, place: Place, fault: Fault) -> None:
        jobs = self._held(place.hand.pid)
        self._tell(fault.kind, f"SIGSTOP {place.name} for {fault.seconds:.1f} s, {jobs} jobs in its hands")
        self._book.note(FAULT, f"stop-{place.hand.pid}")
        place.pause = Pause(place.hand.pid, fault.seconds)
        await place.pause.over()
        self._book.note(FAULT, f"go-{place.hand.pid}")
        place.pause = None

    async def _halt(self, place: Place, fault: Fault) -> None:
        self._tell(fault.kind, f"SIGTERM {place.name}, and kill -9 after {fault.seconds * 1000:.0f} ms")
        place.hand.process.send_signal(signal.SIGTERM)
        if await until(lambda: not place.hand.alive, fault.seconds):
            self._replace(place)
        else:
            self._slay(place)
            place.hand = self._crew.start()

    async def _restart(self, fault: Fault) -> None:
        self._tell(fault.kind, f"SIGTERM to all {len(self.places)} workers, one after the other")
        for each in self.places:
            async with self._at(each) as place:
                if place is None:
                    return
                hand = place.hand
                hand.process.send_signal(signal.SIGTERM)
                if not await until(lambda hand=hand: not hand.alive, ENDS_WITHIN):  # type: ignore[misc]
                    self.complaints.append(f"{place.name} did not end within {ENDS_WITHIN:g} s of SIGTERM")
                    self._slay(place)
                self._replace(place)
                await self._ready(place)

    # ---- how -----------------------------------------------------------------------------------------

    def _slay(self, place: Place) -> None:
        place.hand.kill()
        self._book.note(FAULT, f"{KILL}{place.hand.pid}")

    def _replace(self, place: Place) -> None:
        """Another one for one that has ended."""
        code = place.hand.process.returncode
        if code == self._poisoned:
            self._tell(Kind.POISON, f"{place.name} took poison, {self._held(place.hand.pid)} jobs in its hands")
            self._slay(place)  # it is dead; now the book says so
        elif code != 0 and not place.hand.killed:
            words = last_words(place.hand.log)
            self.complaints.append(f"{place.name} ended by itself with code {code}: {words or 'without a word'}")
            self._slay(place)
            if len(self.complaints) > self._enough:
                raise Stopped(Screen("the workers do not stay alive", str(place.hand.log), words), Exit.FAILED)
        place.hand.bury()
        place.hand = self._crew.start()

    async def _ready(self, place: Place) -> bool:
        """Whether its worker takes jobs in the end; one that dies before is replaced."""

        def up() -> bool:
            if not place.hand.alive:
                self._replace(place)
            return place.hand.pid in self._up

        return await until(up, UP_WITHIN)
