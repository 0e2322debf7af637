"""Assembles a worker, and takes it down in the right order: shutdown as indentation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final

from streamq.broker.connect import describe
from streamq.client.app import Application
from streamq.client.hooks import Event
from streamq.core.clock import Duration, seconds
from streamq.core.options import DEFAULT_QUEUE
from streamq.errors import ConfigurationError
from streamq.worker.alive import alive, causes
from streamq.worker.crew import Crew
from streamq.worker.held import Cause, Holding
from streamq.worker.identity import worker_id
from streamq.worker.patience import GaveUp, may_pass, opened
from streamq.worker.signals import handled

logger = logging.getLogger("streamq.worker")

BURST_TRIES: Final = 8  # about 6 seconds; a worker that is to empty its queues must not wait for ever
FLUSH_WITHIN: Final = 5.0  # seconds to tell Redis what ended, when the worker has to go
UNWIND_WITHIN: Final = 5.0  # seconds a cancelled job has to clean up

Queues = Sequence[str] | Mapping[str, int]


class Worker:
    """Runs jobs until it is stopped: in the background of a block, or with `await worker.run()`.

        async with app.worker(concurrency=10):
            ...

    It never touches the host's signals or logging, unless `handle_signals` asks for the former.
    """

    def __init__(
        self,
        app: Application[Any],
        *,
        queues: Queues | None = None,
        concurrency: int = 100,
        prefetch: int = 0,
        burst: bool = False,
        schedules: bool = True,
        grace: Duration | None = None,
        name: str | None = None,
        handle_signals: bool = False,
    ) -> None:
        if concurrency < 1 or prefetch < 0:
            raise ConfigurationError(
                f"concurrency={concurrency!r}, prefetch={prefetch!r}: a worker runs at least one job at once, and "
                "holds 0 or more beside them."
            )
        self.app: Final = app
        self.weights: Final = _weights(queues, app)
        self.concurrency: Final = concurrency
        self.prefetch: Final = prefetch
        self.burst: Final = burst
        self.schedules: Final = schedules
        self.grace: Final = app.options.grace if grace is None else seconds(grace, name="grace")
        self.name = name or worker_id()
        self.crew: Crew | None = None
        self._handle_signals = handle_signals
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stuck = False  # something goes on running: its lease must run out before others may have it
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Take no new jobs, and end when the running ones have, or after `grace`."""
        self._stopping.set()

    def cancel(self) -> None:
        """Cancel what runs and give it back, now."""
        self._hurry.set()
        self._stopping.set()

    async def __aenter__(self) -> Worker:
        """Start in the background; ready when the block begins. Raises what keeps it from starting."""
        self._task = asyncio.create_task(self.run(), name=f"streamq worker {self.name}")
        started = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            started.cancel()
        if self._task.done() and not self._started.is_set():
            await self._task
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop as `stop` does, and wait; after an exception or Ctrl-C as `cancel` does, for nobody waits any more.

        An error that ended the worker is raised here.
        """
        if kind is None:
            self.stop()
        else:
            self.cancel()
        assert self._task is not None
        await self._task

    async def run(self) -> None:
        """Run until stopped. Redis being away is waited out; a service that crashes is raised."""
        signals: AbstractContextManager[None] = (
            handled(self.stop, self.cancel) if self._handle_signals else nullcontext()
        )
        with signals:
            try:
                await self._run()
            except BaseExceptionGroup as group:
                error = next(causes(group))
                logger.error("worker %s ended: %s: %s", self.name, type(error).__name__, error)
                raise error from None
            except GaveUp:
                logger.warning("worker %s was stopped before Redis could be reached", self.name)

    async def _run(self) -> None:
        await self._open()
        for queue in self.weights:
            await self._prepare(queue)
        async with self.app.lifespan_context() as state:
            crew = self.crew = Crew(self, state)
            try:
                async with alive(crew.outlive_jobs):
                    async with alive(crew.bring_jobs):
                        self._begin()
                        await self._stopping.wait()
                        deadline = time.monotonic() + self.grace
                        crew.close()
                    await self._drain(crew, deadline)
                    await crew.flushed(FLUSH_WITHIN)
            finally:
                await self._abandon(crew)
                crew.give_up()
            if not self._stuck:
                await self._leave()
        self._tell("worker.stopped")

    async def _prepare(self, queue: str) -> None:
        """What cannot be done now the queue's listener does later: the other queues need not wait for this one."""
        try:
            await self.app.broker.prepare(queue)
        except Exception as error:
            if not may_pass(error):
                raise
            address = self.app.broker.connections.address
            logger.warning("worker %s: queue %s: %s", self.name, queue, describe(error, address))

    def _begin(self) -> None:
        self._started.set()
        self._tell("worker.started")
        logger.info("worker %s: %d jobs at once from %s", self.name, self.concurrency, ", ".join(self.weights))

    async def _drain(self, crew: Crew, deadline: float) -> None:
        """Wait for what runs; at the end of grace, or when told to hurry, cancel it and give it back."""
        running = list(crew.running())
        if running and not self._hurry.is_set():
            logger.info("worker %s: waits for %d jobs", self.name, len(running))
            hurry = asyncio.ensure_future(self._hurry.wait())
            done = asyncio.ensure_future(asyncio.wait(_tasks(running)))
            await asyncio.wait(
                {hurry, done},
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurry.cancel()
            done.cancel()
        await self._unwind(list(crew.running()))

    async def _unwind(self, running: list[Holding]) -> None:
        for holding in running:
            holding.cancel(Cause.SHUTDOWN, "the worker is shutting down")
        if tasks := _tasks(running):
            _, stubborn = await asyncio.wait(tasks, timeout=UNWIND_WITHIN)
            if stubborn:
                self._stuck = True
                names = ", ".join(h.delivery.job_id for h in running if h.task in stubborn)
                logger.error(
                    "these jobs were cancelled and do not end; others take over when their leases run out: %s",
                    names,
                )

    async def _abandon(self, crew: Crew) -> None:
        """Nothing of a worker that crashed or was cancelled goes on running."""
        running = list(crew.running())
        for holding in running:
            holding.cancel(Cause.LOST, "the worker has ended")
        if tasks := _tasks(running):
            await asyncio.wait(tasks, timeout=1.0)

    async def _leave(self) -> None:
        for queue in self.weights:
            try:
                await self.app.broker.leave(queue, self.name)
            except Exception as error:
                if not may_pass(error):
                    raise
                logger.warning(
                    "worker %s: %s; a janitor will tidy up after it",
                    self.name,
                    describe(error, self.app.broker.connections.address),
                )

    async def _open(self) -> None:
        tries = BURST_TRIES if self.burst else None
        await opened(self.app, what=f"worker {self.name}", stopping=self._stopping, tries=tries)

    def _tell(self, event: str) -> None:
        if self.app.events.wants(event):
            self.app.events.emit(Event(name=event, worker=self.name, at=self.app.broker.clock.now_ms()))


def _tasks(running: Iterable[Holding]) -> list[asyncio.Task[None]]:
    return [holding.task for holding in running if holding.task is not None and not holding.task.done()]


def _weights(queues: Queues | None, app: Application[Any]) -> dict[str, int]:
    if isinstance(queues, str):
        raise ConfigurationError(f"queues={queues!r} is one text: give a list, as [{queues!r}].")
    if queues is None:
        return dict.fromkeys([*app.queues, DEFAULT_QUEUE], 1)
    weights = dict(queues) if isinstance(queues, Mapping) else dict.fromkeys(queues, 1)
    if not weights:
        raise ConfigurationError("queues is empty: a worker serves at least one, as ['default'].")
    for queue, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"queues: the weight of {queue!r} is {weight!r}; give a whole number from 1 on.")
    return weights
