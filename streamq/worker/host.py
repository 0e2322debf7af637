"""A worker that has a process to itself: signals, what others are told of it, and its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from streamq.client.hooks import Event
from streamq.worker.alive import Runs, alive, causes
from streamq.worker.app import StreamQ
from streamq.worker.dump import dumping
from streamq.worker.health import Health
from streamq.worker.metrics import exposition
from streamq.worker.notify import Notifier
from streamq.worker.parent import Parent, Spec
from streamq.worker.pulse import Pulse, Reach
from streamq.worker.signals import STOPS, answered, handled
from streamq.worker.status import Status, Tally, resident

logger = logging.getLogger("streamq.worker")


class Host:
    """Runs one worker as `spec` says, alone or as the child of a supervisor.

    `listening` is the socket for probes and metrics, of a process alone.

        await Host(app, spec).run()
    """

    def __init__(self, app: StreamQ[Any], spec: Spec, listening: socket.socket | None = None) -> None:
        self.worker: Final = app.worker(**spec.worker)
        self._app = app
        self._ready = False
        self._draining = False
        self._started = asyncio.Event()
        self._services: list[Runs] = []
        self._notifier: Notifier | None = None
        self._parent: Parent | None = None
        self._pulse = Pulse()
        self._reach: Reach | None = None
        self._tally: Tally | None = None
        if spec.pipe >= 0:
            self._parent = Parent(spec.pipe, self.status, self.drain, self.worker.cancel)
            self._services.append(self._parent)
        else:
            self._notifier = Notifier()
            self._notifier.shown = self._shown
            self._services.append(self._notifier)
        if listening is not None:
            self._services.append(Health(listening, self))
        if listening is not None or spec.counted:
            self._reach = Reach(app.broker, self._started)
            self._services += [self._pulse, self._reach]
        if listening is not None or spec.counted or spec.max_jobs or spec.max_memory:
            self._tally = Tally(spec.max_jobs, spec.max_memory, self._tell)
        app.events.on("worker.started", self._begun)

    async def run(self) -> None:
        """Run until stopped; raises what ended the worker."""
        try:
            with self._signals(), dumping(self.worker):
                async with alive(self._services):
                    await self.worker.run()
        except BaseExceptionGroup as group:
            raise next(causes(group)) from None
        finally:
            await self._app.close()

    def _begun(self, _: Event) -> None:
        assert self.worker.crew is not None
        self.worker.crew.reports.tally = self._tally
        self._ready = True
        self._started.set()
        self._tell()
        if self._notifier is not None:
            self._notifier.ready()

    def drain(self, who: str = "") -> None:
        """Take no more jobs. `who` asked for it, if nobody else has said so."""
        if who and not self._draining:
            logger.warning("%s: no new jobs, the running ones may end", who)
        self._draining = True
        self.worker.stop()
        self._tell()
        if self._notifier is not None:
            self._notifier.stopping()

    def _tell(self) -> None:
        if self._parent is not None:
            self._parent.tell()

    @contextmanager
    def _signals(self) -> Generator[None]:
        # A supervisor's child may get SIGTERM from several sides at once (systemd sends it to the whole group): one
        # word, however often it is said. To cancel is the supervisor's word alone.
        alone = self._parent is None
        answers: dict[signal.Signals, Callable[[], object]] = {}
        if not alone:
            answers = {each: partial(self.drain, each.name) for each in STOPS}
            answers[signal.SIGHUP] = lambda: None
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            answers[signal.SIGHUP] = partial(self.drain, "SIGHUP")
        with handled(self.drain, self.worker.cancel) if alone else nullcontext(), answered(answers):
            yield

    # ---- how it is ------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Everything that is known of this process."""
        crew, tally = self.worker.crew, self._tally
        running = () if crew is None else crew.running()
        return Status(
            ready=self._ready and not self._draining,
            draining=self._draining,
            connected=self._reach is not None and self._reach.connected,
            running=dict(Counter(holding.delivery.queue for holding in running)),
            finished={} if tally is None else {**tally.finished},
            timed={} if tally is None else tally.timed,
            lag=self._pulse.lag,
            rss=resident(),
            worn="" if tally is None else tally.worn,
            grace=self.worker.grace,
        )

    def not_alive(self) -> str:
        """Nothing: a process whose loop stands still does not answer at all."""
        return ""

    def not_ready(self) -> str:
        """Why it takes no jobs."""
        if self._draining:
            return "draining"
        if not self._ready:
            return "starting"
        return "Redis does not answer" if self._reach is not None and not self._reach.connected else ""

    def metrics(self) -> str:
        """The text of `/metrics`."""
        return exposition(self.status(), ready=not self.not_ready())

    def _shown(self) -> str:
        return f"{self.not_ready() or 'ready'}, {sum(self.status().running.values())} jobs run"
