"""Renews leases from a thread with a connection of its own, so that a blocked event loop keeps its jobs."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from streamq.broker.broker import Broker
from streamq.broker.renewer import Held as Fence
from streamq.broker.renewer import Renewal, Renewer
from streamq.worker.held import Cause, Held, Holding, snapshot
from streamq.worker.patience import outage
from streamq.worker.rest import rest

logger = logging.getLogger("streamq.worker")

STALL_LEASES: Final = 10  # an event loop that stood still for so long is believed to stand still for ever


class Heartbeat:
    """One thread a worker. `turn` is one renewal of everything that is held, every lease/5.

    While nothing is held it only says that the worker lives, about once a lease.

    `held` is what the lanes hold, by queue; `info` gives what the worker says of itself.
    """

    name = "heartbeat"

    def __init__(self, broker: Broker, consumer: str, held: Mapping[str, Held], info: Callable[[], bytes]) -> None:
        self._broker = broker
        self._consumer = consumer
        self._held = held
        self._info = info
        self._lease = broker.options.lease
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._renewer: Renewer | None = None
        self._stopping = threading.Event()
        self._bell = threading.Event()
        self._ended = asyncio.Event()
        self._ticked = self._noted = time.monotonic()
        self._awoke = 0.0
        self.on_awake: Callable[[], None] = lambda: None  # the loop stood still for a lease
        self._silent_until = 0.0
        self._stalled = False
        self._failures = 0
        self.stall_leases: float = STALL_LEASES
        self.suspended = False  # tests play a worker that was paused

    async def run(self) -> None:
        """Start the thread and live as long as it does."""
        thread = threading.Thread(target=self._beat, name="streamq-heartbeat", daemon=True)
        thread.start()
        try:
            while not await rest(self._lease / 5, self._ended):
                self._note()
        finally:
            self.stop()

    def overslept(self, asked: float) -> bool:
        """Whether the event loop stood still for a lease since `asked` (monotonic seconds), or until after it.

        The process was stopped, or a job held the loop up: what Redis handed out meanwhile may be another's by now.
        """
        if time.monotonic() - self._noted > self._lease:
            self._note()
        return asked < self._awoke

    def _note(self) -> None:
        now = time.monotonic()
        if now - self._noted > self._lease:
            self._awoke = now
            self.on_awake()
        self._noted = now

    def stop(self) -> None:
        """Renew no more."""
        self._stopping.set()
        self._bell.set()

    def wake(self) -> None:
        """Renew at once: somebody cancels a job, and the renewal says why."""
        self._silent_until = 0.0
        self._bell.set()

    # ---- in the thread ----------------------------------------------------------------------------------------

    def _beat(self) -> None:
        try:
            while not self._stopping.is_set():
                self._bell.clear()
                pause = self._lease / 5
                if not self.suspended and not self._try():
                    pause = self._pause()
                self._bell.wait(pause)
        finally:
            self._drop_connection()
            self._call(self._ended.set)

    def _pause(self) -> float:
        """Seconds until the next try after a failed one: a lease must not run out for want of trying."""
        return min(self._lease / 5, 0.1 * 2.0 ** min(self._failures, 6)) * (0.5 + random.random() / 2)

    def _try(self) -> bool:
        try:
            self.turn()
        except Exception as error:  # noqa: BLE001 - this thread must live as long as the worker does
            self._failures += 1
            if not self._stopping.is_set():
                where = self._broker.connections.address
                outage(where).goes_on("heartbeat, leases are not renewed", where, error, self._pause())
            self._expire()
            return False
        self._failures = 0
        return True

    def turn(self) -> None:
        """Renew what is held, cancel what is lost or was cancelled. Blocks; for the heartbeat's thread."""
        alive = self._loop_lives()
        begun, idle = time.monotonic(), not any(self._held.values())
        if idle and begun < self._silent_until:
            return
        failures: list[Exception] = []
        for queue, held in self._held.items():
            try:
                self._renew(queue, held, alive)
            except Exception as error:  # noqa: BLE001 - the next queue may be on a server that is well; raised below
                failures.append(error)
        if failures:
            raise failures[0]
        # After the last job once more: it is still named among those that run here.
        self._silent_until = begun + 0.9 * self._lease if idle else 0.0
        self._expire()

    def _renew(self, queue: str, held: Held, alive: bool) -> None:
        if self._renewer is None:
            self._renewer = self._broker.renewer()
        now = time.monotonic()
        holdings = [each for each in snapshot(held) if alive and self._deserves(each, now)]
        fences = [Fence(d.priority, d.entry.decode(), d.count, d.job_id) for d in (h.delivery for h in holdings)]
        renewal = self._renewer.renew(queue, self._consumer, fences, self._info(), round(self._lease * 1000))
        self._apply(holdings, fences, renewal, now)

    def _apply(self, holdings: list[Holding], fences: list[Fence], renewal: Renewal, sent: float) -> None:
        lost = set(renewal.lost)
        for holding, fence in zip(holdings, fences, strict=True):
            job_id = fence.job_id
            if job_id in lost:
                self._call(_lose, holding, fence.deliveries)
                continue
            holding.deadline = sent + self._lease
            if job_id in renewal.cancelled:
                self._call(holding.cancel, Cause.USER, renewal.cancelled[job_id])

    def _expire(self) -> None:
        """What was not renewed in time belongs to whoever sweeps it: end it here."""
        now = time.monotonic()
        for held in self._held.values():
            for holding in snapshot(held):
                if now > holding.deadline and not holding.done:
                    self._call(holding.cancel, Cause.LOST, "its lease ran out")

    def _loop_lives(self) -> bool:
        self._call(self._tick)
        if time.monotonic() - self._ticked <= self.stall_leases * self._lease:
            self._stalled = False
            return True
        if not self._stalled:
            self._stalled = True
            jobs = [h for held in self._held.values() for h in snapshot(held) if not h.done]
            logger.error(
                "the event loop has stood still for %g leases; these jobs are given up: %s\n%s",
                self.stall_leases,
                ", ".join(_named(job) for job in jobs[:20]),
                self._stack(),
            )
        return False

    def _deserves(self, holding: Holding, now: float) -> bool:
        if holding.hard_limit and now > holding.hard_limit + self._lease and not holding.done:
            if not holding.silent:
                holding.silent = True
                logger.error(
                    "%s goes on a lease after its time limit: its lease is renewed no more\n%s",
                    _named(holding),
                    self._stack(),
                )
            return False
        return True

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody runs anything any more
            self._stopping.set()

    def _drop_connection(self) -> None:
        if self._renewer is not None:
            try:
                self._renewer.close()
            except Exception:
                logger.debug("closing the heartbeat's connection failed", exc_info=True)


def _lose(holding: Holding, deliveries: int) -> None:
    # Asked in the loop's thread, which may have adopted the entry under a new count meanwhile.
    if holding.delivery.count == deliveries:
        holding.cancel(Cause.LOST, "another worker has it")


def _named(holding: Holding) -> str:
    task = holding.job.task if holding.job is not None else "?"
    return f"{task}[{holding.delivery.job_id}]"
