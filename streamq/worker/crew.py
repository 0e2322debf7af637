"""All services of one worker, and who wakes whom."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol

import msgspec

from streamq.broker.facts import libraries
from streamq.broker.inspector import WorkerInfo
from streamq.client.app import Application
from streamq.worker.alive import Runs
from streamq.worker.bell import Bell, Ringers
from streamq.worker.burst import Burst
from streamq.worker.flight import OVERLAP, Flight
from streamq.worker.heartbeat import Heartbeat
from streamq.worker.held import Held, Holding, snapshot
from streamq.worker.janitor import Janitor
from streamq.worker.lane import Lane
from streamq.worker.listener import Listener
from streamq.worker.pool import Pool
from streamq.worker.promoter import Promoter
from streamq.worker.reclaimer import Reclaimer
from streamq.worker.reports import Reports
from streamq.worker.runner import Runner
from streamq.worker.scheduler import schedulers
from streamq.worker.slots import Slots
from streamq.worker.watchdog import Watchdog

SHOWN: Final = 1_000  # running jobs that a worker names in what it says of itself


class Orders(Protocol):
    """What a worker was asked to be."""

    name: str

    @property
    def app(self) -> Application[Any]:
        """Whose tasks it runs."""
        ...

    @property
    def weights(self) -> dict[str, int]:
        """Queues and their weights."""
        ...

    @property
    def concurrency(self) -> int:
        """Jobs at once."""
        ...

    @property
    def prefetch(self) -> int:
        """Jobs held ready beside them."""
        ...

    @property
    def burst(self) -> bool:
        """Whether it ends when nothing is left."""
        ...

    @property
    def schedules(self) -> bool:
        """Whether it enqueues the occurrences of schedules."""
        ...

    def stop(self) -> None:
        """End, in good order."""
        ...


class Crew:
    """`outlive_jobs` settle and renew until the last job is told of; `bring_jobs` stop before."""

    def __init__(self, orders: Orders, state: object) -> None:
        app, name, broker = orders.app, orders.name, orders.app.broker
        queues = list(orders.weights)
        self._app = app
        self._waking = False
        self.slots = Slots(orders.concurrency, orders.prefetch, orders.weights)
        self.pool = Pool(app.options.pool_size)
        self.runner = Runner(app, self.slots, name, state, self.pool)
        talkative = {task.name: task.signature for task in app.tasks.values() if task.options.log_args}
        self.reports = Reports(app.events, name, app.options, talkative)
        self.lanes = {queue: Lane(broker, queue, name, self.slots, self.runner, self.reports) for queue in queues}
        self._held: dict[str, Held] = {queue: lane.held for queue, lane in self.lanes.items()}
        self._info = WorkerInfo(
            name, socket.gethostname(), os.getpid(), _version(), queues, orders.concurrency, sorted(app.tasks),
            broker.clock.now_ms(), lease=broker.options.lease, libraries=libraries(),
        )  # fmt: skip
        self.heartbeat = Heartbeat(broker, name, self._held, self._said)
        self.heartbeat.on_awake = self._awake
        for lane in self.lanes.values():
            lane.overslept = self.heartbeat.overslept
        self.promoters = {queue: Promoter(broker, queue) for queue in queues}
        self.reclaimers = {queue: Reclaimer(broker, lane, name, self.slots) for queue, lane in self.lanes.items()}
        self.listeners = [Listener(broker, lane, name, self.slots) for lane in self.lanes.values()]
        self.janitors = {queue: Janitor(broker, queue) for queue in queues}
        bell = Bell(broker, {queue: self._ringers(queue) for queue in queues})
        flights = [Flight(broker, lane, name, number) for lane in self.lanes.values() for number in range(OVERLAP)]
        self.outlive_jobs: list[Runs] = [self.heartbeat, bell, self.pool, *flights]
        if app.options.stall:
            self.outlive_jobs.append(Watchdog(app, name, self._held))
        self.bring_jobs: list[Runs] = [*self.promoters.values(), *self.reclaimers.values()]
        self.bring_jobs += self.janitors.values()
        if orders.schedules:
            self.bring_jobs += schedulers(app)
        if orders.burst:
            self.bring_jobs.append(Burst(broker, list(self.lanes.values()), self.slots, orders.stop))
        self.bring_jobs += self.listeners
        if len(self.lanes) > 1:
            for lane in self.lanes.values():
                lane.on_free = self._wake_lanes

    def _awake(self) -> None:
        """The loop stood still for a lease: what waits here for a slot may be another's by now. The fence knows."""
        for lane in self.lanes.values():
            for holding in self.runner.unstarted(lane):
                lane.release_unstarted(holding)

    def _ringers(self, queue: str) -> Ringers:
        return Ringers(
            due=self.promoters[queue].wake,
            cancel=lambda job_id: self._cancel(queue, job_id),
            released=self.reclaimers[queue].wake,
            paused=lambda paused: self.lanes[queue].rule(paused, time.monotonic()),
            missed=lambda: self._missed(queue),
        )

    def _missed(self, queue: str) -> None:
        self.heartbeat.wake()
        self.lanes[queue].prompt()

    def _cancel(self, queue: str, job_id: str) -> None:
        if any(holding.delivery.job_id == job_id for holding in self.lanes[queue].held.values()):
            self.heartbeat.wake()

    def _wake_lanes(self) -> None:
        if not self._waking:  # once a pass of the loop, however many jobs end in it
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake_now)

    def _wake_now(self) -> None:
        self._waking = False
        # First the one whose last turn is longest ago: only two small turns are under way at once, and none may starve.
        for lane in sorted(self.lanes.values(), key=lambda lane: lane.left):
            lane.wake()

    def _said(self) -> bytes:
        """What the worker says of itself with each renewal. Called in the heartbeat's thread."""
        running = [
            (holding.delivery.job_id, holding.job.task, holding.started_at)
            for held in self._held.values()
            for holding in snapshot(held)
            if holding.job is not None and holding.started_at and not holding.done
        ]
        return msgspec.msgpack.encode(msgspec.structs.replace(self._info, running=running[:SHOWN]))

    # ---- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Fetch no more, and give back what has not been started."""
        for lane in self.lanes.values():
            lane.close()
        for holding in self.runner.unstarted():
            self.lanes[holding.delivery.queue].release_unstarted(holding)

    def running(self) -> Iterator[Holding]:
        """Everything that was started and has not ended."""
        for lane in self.lanes.values():
            for holding in (*snapshot(lane.held), *lane.unheld):
                if holding.task is not None and not holding.task.done():
                    yield holding

    async def flushed(self, within: float) -> None:
        """Wait until Redis knows of all that ended, `within` seconds at most."""
        deadline = time.monotonic() + within
        while not all(lane.flushed for lane in self.lanes.values()) and time.monotonic() < deadline:
            for lane in self.lanes.values():
                lane.wake()
            await asyncio.sleep(0.005)

    def give_up(self) -> None:
        """Try no longer to reach Redis."""
        self.heartbeat.stop()
        for lane in self.lanes.values():
            lane.give_up()


def _version() -> str:
    try:
        return version("streamq")
    except PackageNotFoundError:
        return "unknown"
