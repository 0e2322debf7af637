"""Concurrent enqueues of one queue share round trips."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from streamq.broker.broker import NewJob, Placed
from streamq.core.limits import MAX_BATCH
from streamq.errors import NotDurable

MAX_BYTES: Final = 4_000_000  # a flight; more would hold the server's only thread for too long


class Adds(Protocol):
    """What a sender needs of a broker."""

    async def add(self, queue: str, jobs: Sequence[NewJob], /, *, durability: str | None) -> list[Placed]:
        """One flight."""
        ...


class _Waiting(NamedTuple):
    job: NewJob
    placed: asyncio.Future[Placed]


class Sender:
    """The first job goes at once, alone; those that arrive while it is under way leave together with the next flight.

    Each caller waits for its own job: cancelling one cancels no other, and a job whose caller was
    cancelled before it left does not leave.
    """

    def __init__(self, broker: Adds) -> None:
        self._broker = broker
        self._pending: dict[tuple[str, str | None], deque[_Waiting]] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._empty: asyncio.Event | None = None  # somebody waits until nothing is under way

    async def send(self, queue: str, job: NewJob, durability: str | None) -> Placed:
        """Raises what the broker raises for this flight."""
        destination = queue, durability
        if (line := self._pending.get(destination)) is None:
            return await self._fly_alone(destination, job)
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        line.append(waiting)
        return await waiting.placed

    async def _fly_alone(self, destination: tuple[str, str | None], job: NewJob) -> Placed:
        # In the caller's own task: a task and a future more would cost a sequential producer 20 us a job.
        queue, durability = destination
        line = self._pending[destination] = deque[_Waiting]()
        try:
            (placed,) = await self._broker.add(queue, [job], durability=durability)
            return placed
        finally:
            if line:
                flight = asyncio.get_running_loop().create_task(
                    self._fly(destination, line), name=f"streamq-send-{queue}"
                )
                self._flights.add(flight)
                flight.add_done_callback(partial(self._landed, destination, line))
            else:
                self._gone(destination)

    async def _fly(self, destination: tuple[str, str | None], line: deque[_Waiting]) -> None:
        while passengers := _board(line):
            await self._deliver(destination, passengers)
            await asyncio.sleep(0)  # those who were just told may have another one
        self._gone(destination)

    def _landed(self, destination: tuple[str, str | None], line: deque[_Waiting], flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._pending.get(destination) is line:  # it was cancelled, perhaps before its first step
            self._gone(destination)
            for waiting in line:
                waiting.placed.cancel()

    def _gone(self, destination: tuple[str, str | None]) -> None:
        del self._pending[destination]
        if not self._pending and self._empty is not None:
            self._empty.set()

    async def _deliver(self, destination: tuple[str, str | None], passengers: list[_Waiting]) -> None:
        queue, durability = destination
        try:
            all_placed = await self._broker.add(queue, [each.job for each in passengers], durability=durability)
        except asyncio.CancelledError:
            for each in passengers:
                each.placed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the callers
            for each in passengers:
                if not each.placed.done():
                    each.placed.set_exception(_own(error, each.job.job_id))
            return
        for each, placed in zip(passengers, all_placed, strict=True):
            if not each.placed.done():
                each.placed.set_result(placed)

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._pending:
            self._empty = self._empty or asyncio.Event()
            self._empty.clear()
            await self._empty.wait()


def _board(line: deque[_Waiting]) -> list[_Waiting]:
    """Take the next flight off the line; a job whose caller has gone stays at home."""
    boarded: list[_Waiting] = []
    size = 0
    while line and len(boarded) < MAX_BATCH:
        if not line[0].placed.done():
            size += len(line[0].job.body)
            if boarded and size > MAX_BYTES:
                break
            boarded.append(line[0])
        line.popleft()
    return boarded


def _own(error: Exception, job_id: str) -> Exception:
    """The error for one caller: shared, its traceback would grow with each of them."""
    mine = NotDurable(str(error), job_id) if isinstance(error, NotDurable) else copy.copy(error)
    mine.__cause__ = error
    return mine
