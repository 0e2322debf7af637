"""Says which job, file and line hold the event loop, while they do; and what all running jobs are doing."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from streamq.client.app import Application
from streamq.client.context import Context, current_context
from streamq.client.hooks import Event
from streamq.core.frames import users_line
from streamq.worker.held import Held, Holding
from streamq.worker.pool import Pool
from streamq.worker.stacks import context_of, inside_the_loop, lines_in, stack_of, stacks_of_threads

logger = logging.getLogger("streamq.worker")

LONGEST_TICK: Final = 0.9  # seconds: a stall is known a second after the threshold, however long that is
JITTER: Final = 0.2  # seconds
LONGEST_SILENCE: Final = 60.0  # seconds between two lines about one stall


class Stall(msgspec.Struct, frozen=True):
    """What holds the event loop: a job, if it is one's, and the line."""

    place: str
    job: Context[Any] | None = None

    def __str__(self) -> str:
        holder = "no job of this worker" if self.job is None else f"{self.job.task}[{self.job.job_id}]"
        return f"{holder}, at {self.place}"

    @property
    def about(self) -> dict[str, object]:
        """The job's fields in a log record."""
        return {} if self.job is None else {"job_id": self.job.job_id, "task": self.job.task, "queue": self.job.queue}


class Watchdog:
    """One thread a worker. It asks the event loop for a sign of life, and names what keeps it from giving one.

    `held` is what the lanes hold, by queue: while it is empty the loop is asked less often.
    """

    name = "watchdog"

    def __init__(self, app: Application[Any], worker: str, held: Mapping[str, Held]) -> None:
        self._app = app
        self._worker = worker
        self._held = held
        self._threshold = app.options.stall
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._clock = _cpu_clock(self._thread)
        self._stopping = threading.Event()
        # The thread alone writes these; the loop writes `_answered`.
        self._asked = 0.0
        self._answered = 0.0  # monotonic seconds; 0: a sign of life is waited for
        self._speak_at = 0.0
        self._silence = 1.0
        self._stall: Stall | None = None

    async def run(self) -> None:
        """Watch until it is cancelled."""
        threading.Thread(target=self._watch, name="streamq-watchdog", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping.set()

    # ---- in the thread ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._ask()
        while not self._slept():
            if self._answered:
                self._over()
                self._ask()
            elif time.monotonic() >= self._speak_at:
                self._speak()

    def _ask(self) -> None:
        self._answered = 0.0
        self._asked = time.monotonic()
        self._speak_at, self._silence = self._asked + self._threshold, 1.0
        self._call(self._answer)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: it holds nobody up any more
            self._stopping.set()

    def _answer(self) -> None:
        self._answered = time.monotonic()

    def _slept(self) -> bool:
        """Sleep until the next look; True when it was the last one.

        Waking late means that the process was suspended or had no core, and the loop neither: that time does not count.
        But while the loop's thread had a core, it was the one that kept this thread from waking.
        """
        before, worked = time.monotonic(), self._worked()
        pause = self._pause(before)
        if self._stopping.wait(pause):
            return True
        took, worked = time.monotonic() - before, self._worked() - worked
        late = max(0.0, min(took - pause, took - worked))
        self._speak_at += late
        if late > JITTER:  # less is a busy machine: the stall lasted as long for all that
            self._asked += late
        return False

    def _worked(self) -> float:
        """Seconds of CPU that the loop's thread has used."""
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # that thread has ended
            self._stopping.set()
            return 0.0

    def _pause(self, now: float) -> float:
        tick = min(self._threshold / 2 if any(self._held.values()) else self._threshold, LONGEST_TICK)
        return max(0.001, min(tick, self._speak_at - now))

    def _speak(self) -> None:
        lines, job = lines_in(self._thread), self._job()  # together: reading the source lets the loop's thread go on
        if not lines or self._answered:
            return
        found = self._stall = Stall(str(users_line(inside_the_loop(lines))), job)
        innermost = str(lines[0])
        logger.error(
            "the event loop has stood still for %.1f s, held by %s%s",
            time.monotonic() - self._asked,
            found,
            "" if innermost == found.place else f"; innermost {innermost}",
            extra=found.about,
        )
        self._speak_at = time.monotonic() + self._silence
        self._silence = min(2 * self._silence, LONGEST_SILENCE)

    def _job(self) -> Context[Any] | None:
        task = asyncio.current_task(self._loop)
        context = None if task is None else context_of(task)
        return None if context is None else context.get(current_context)

    def _over(self) -> None:
        stall, self._stall = self._stall, None
        if stall is None:
            return
        total = max(self._threshold, self._answered - self._asked)
        logger.warning("the event loop runs again after %.1f s, held by %s", total, stall, extra=stall.about)
        if self._app.events.wants("loop.stalled"):
            self._call(self._tell, stall, total)

    # ---- in the loop ------------------------------------------------------------------------------------------

    def _tell(self, stall: Stall, total: float) -> None:
        job = stall.job
        self._app.events.emit(
            Event(
                name="loop.stalled",
                job_id="" if job is None else job.job_id,
                task="" if job is None else job.task,
                queue="" if job is None else job.queue,
                attempt=0 if job is None else job.attempt,
                at=self._app.broker.clock.now_ms(),
                duration=total,
                reason=stall.place,
                worker=self._worker,
            )
        )


def _cpu_clock(thread: int) -> int:
    """The clock of the CPU time of a thread; of the process where threads have none."""
    if sys.platform == "darwin":
        return time.CLOCK_PROCESS_CPUTIME_ID
    return time.pthread_getcpuclockid(thread)


class Crew(Protocol):
    """What `describe_running` asks of a crew."""

    @property
    def pool(self) -> Pool:
        """Its child processes."""
        ...

    def running(self) -> Iterator[Holding]:
        """What was started and has not ended."""
        ...


def describe_running(crew: Crew) -> str:
    """Every running job, since when, and what it is doing: the stack of its task, of its thread, or its process.

    To be called in the event loop's thread.
    """
    threads = stacks_of_threads()
    return "\n".join(_described(each, crew.pool, threads) for each in crew.running()) or "no job is running"


def _described(holding: Holding, pool: Pool, threads: Mapping[str, str]) -> str:
    job_id = holding.delivery.job_id
    task = holding.job.task if holding.job is not None else "?"
    since = datetime.fromtimestamp(holding.started_at / 1000, UTC).isoformat(timespec="seconds")
    head = f"{task}[{job_id}] " + (f"since {since}, attempt {holding.attempt}" if holding.started_at else "starting")
    if pid := pool.pids.get(job_id):
        return f"{head}, in the child process {pid}\n"
    stack = threads.get(job_id) or (stack_of(holding.task) if holding.task is not None else "")
    return f"{head}\n{stack}"
