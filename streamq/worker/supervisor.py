"""Several worker processes under one that runs no jobs: it starts, replaces and ends them, and answers for all."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from streamq.worker.alive import Runs, alive, causes
from streamq.worker.changes import changes
from streamq.worker.child import SILENT, Child
from streamq.worker.health import Health
from streamq.worker.metrics import exposition
from streamq.worker.notify import Notifier
from streamq.worker.parent import Spec
from streamq.worker.place import House, Place
from streamq.worker.signals import answered, handled
from streamq.worker.status import Status, total

MARGIN: Final = 15.0  # seconds beyond grace: 5 to clean up, 5 to tell Redis, and to leave
STATES: Final = ("starting", "ready", "draining")

logger = logging.getLogger("streamq.supervisor")


class Loop:
    """A method of the supervisor that runs beside it."""

    def __init__(self, name: str, method: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self._method = method

    async def run(self) -> None:
        """Run until cancelled."""
        await self._method()


class Supervisor:
    """Keeps `processes` workers running as `spec` says. It imports no application and asks Redis nothing.

    `command` starts one of them in `environ`, `listening` is the socket for probes and metrics, `folders` are those
    whose Python files start all of them anew when they change. `margin` is seconds beyond the grace of a worker.

        code = await Supervisor(spec, 4, command=own_command("shop:app")).run()
    """

    def __init__(
        self,
        spec: Spec,
        processes: int,
        *,
        command: Sequence[str],
        environ: Mapping[str, str] = os.environ,
        listening: socket.socket | None = None,
        folders: Sequence[str] = (),
        margin: float = MARGIN,
    ) -> None:
        start = self._start_when_it_works if folders else self._start
        self._stopping = asyncio.Event()
        self._house = House(start, self._stopping, margin, bool(spec.worker.get("burst")))
        self.restarts: Final = self._house.restarts  # why -> how often
        self.places: Final = [Place(number, self._house) for number in range(1, processes + 1)]
        self._spec = spec
        self._command = command
        self._environ = dict(environ)
        self._folders = folders
        self.living: dict[Child, asyncio.Task[None]] = {}
        self._past = Status()  # what those counted that have ended
        self._hurry = False
        self._unclean = False  # somebody had to be killed
        self._complete = False  # all have been ready at once
        self._changed = asyncio.Event()
        self._gate = asyncio.Lock()
        self._hangup = asyncio.Event()
        self._terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup ignores it
        self._notifier = Notifier(self._environ)  # takes what is systemd's out of it
        self._notifier.alive, self._notifier.shown = self.not_alive, self._shown
        self._services: list[Runs] = [self._notifier, Loop("reloads", self._reload)]
        if folders:
            self._services.append(Loop("changes", self._watch))
        if listening is not None:
            self._services.append(Health(listening, self))

    async def run(self) -> int:
        """Run until stopped. The exit code: that of the first process, if it ends before it ever took jobs."""
        try:
            answers = {signal.SIGHUP: self._hung_up, signal.SIGUSR1: self._show}
            with handled(self.stop, self.cancel), answered(answers):
                async with alive(self._services):
                    return await self._run()
        except BaseExceptionGroup as group:
            raise next(causes(group)) from None

    async def _run(self) -> int:
        # The first goes ahead: what is wrong with all of them is said once.
        first = self.places[0].child = await self._start(1)
        if not await first.became_ready() and not self._stopping.is_set():
            code = await first.ended()
            return code if code >= 0 else 128 - code
        codes = await asyncio.gather(*(place.keep() for place in self.places))
        while self.living:
            await asyncio.wait(self.living.values())
        return max(codes) or int(self._unclean)

    # ---- processes ------------------------------------------------------------------------------------------

    async def _start(self, number: int) -> Child:
        worker = self._spec.worker
        if name := worker.get("name"):  # a name that comes back could settle for the one before it
            worker = {**worker, "name": f"{name}-{number}-{secrets.token_hex(3)}"}
        spec = msgspec.structs.replace(self._spec, worker=worker)
        child = await Child.start(number, self._command, spec, self._environ, self._heard)
        self.living[child] = asyncio.create_task(self._bury(child), name=f"streamq end of {child}")
        if self._stopping.is_set():
            self._end(child)
        return child

    async def _start_when_it_works(self, number: int) -> Child:
        """Who is at work on the code makes mistakes: say what is wrong once, and wait for the next change."""
        async with self._gate:
            while True:
                self._changed.clear()
                child = await self._start(number)
                if await child.became_ready() or self._stopping.is_set():
                    return child
                if not child.told:
                    logger.error("%s did not start: the next change of a file is waited for", child)
                    await self._changed.wait()
                if self._stopping.is_set():
                    return child

    async def _bury(self, child: Child) -> None:
        await child.ended()
        said = child.status
        self._past = total([self._past, Status(finished=said.finished, timed=said.timed)])
        if child.killed and child.told:
            self._unclean = self._stopping.is_set()
            logger.error("%s did not end and was killed: its jobs wait until their leases run out", child)
        del self.living[child]

    def _heard(self, child: Child) -> None:
        place = self.places[child.number - 1]
        if place.child is not child:
            return
        if child.status.worn:
            place.renew(child.status.worn)
        if not self._complete and all(each.ready for each in self.places):
            self._complete = True
            logger.info("supervisor (pid %d): %d worker processes are ready", os.getpid(), len(self.places))
            self._notifier.ready()

    # ---- what people ask for ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let all take no more jobs, and end when the running ones have."""
        self._stopping.set()
        self._changed.set()
        self._notifier.stopping()
        for child in self.living:
            self._end(child)

    def cancel(self) -> None:
        """Cancel what runs and give it back, now."""
        self._hurry = True
        self.stop()

    def _end(self, child: Child) -> None:
        if self._hurry:
            child.cancel(self._house.margin)
        else:
            child.drain(self._house.margin)

    def restart(self) -> None:
        """Begin to replace all, one by one; a round that is under way, and perhaps stuck, is given up."""
        for place in self.places:
            if place.successor is not None:
                place.successor.kill()
        self._hangup.set()

    async def _reload(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            logger.info("the worker processes are replaced one by one")
            if self._complete:
                self._notifier.reloading()
            for place in self.places:
                if self._hangup.is_set() or not await place.hand_over("reload"):
                    break
            else:
                logger.info("all worker processes have been replaced")
            if self._complete and not self._stopping.is_set():
                self._notifier.ready()

    async def _watch(self) -> None:
        async for names in changes(self._folders):
            logger.info("%s changed: the worker processes start anew", ", ".join(names))
            self.restarts["change"] += 1
            self._changed.set()
            for child in self.living:
                child.cancel(self._house.margin)

    def _hung_up(self) -> None:
        if self._terminal and not _has_terminal():
            logger.warning("SIGHUP, and the terminal is gone: no new jobs, the running ones may end")
            self.stop()
        else:
            self.restart()

    def _show(self) -> None:
        logger.info("supervisor (pid %d): %s", os.getpid(), self._shown())
        for child in self.living:
            logger.info("%s: %s, %d jobs run", child, child.state, sum(child.status.running.values()))
            if child.heard_at:  # one that still imports would die of it
                child.send(signal.SIGUSR1)

    # ---- how things stand -------------------------------------------------------------------------------------

    def not_alive(self) -> str:
        """Why this process and its children should be killed."""
        speaking = [child for child in self.living if child.heard_at]
        if speaking and all(child.silent for child in speaking):
            return f"no event loop of {len(speaking)} processes has moved for {SILENT:g} s"
        return ""

    def not_ready(self) -> str:
        """Why jobs are not taken by all."""
        if self._stopping.is_set():
            return "draining"
        ready = [place.child for place in self.places if place.ready]
        if len(ready) < len(self.places):
            return f"{len(ready)} of {len(self.places)} processes are ready"
        away = self._spec.counted and not all(child.status.connected for child in ready if child is not None)
        return "Redis does not answer" if away else ""

    def metrics(self) -> str:
        """The text of `/metrics`."""
        children = dict.fromkeys(STATES, 0) | Counter(child.state for child in self.living)
        status = total([self._past, *(child.status for child in self.living)])
        restarts = {"ended": 0, **self.restarts}
        return exposition(status, ready=not self.not_ready(), children=children, restarts=restarts)

    def _shown(self) -> str:
        running = sum(sum(child.status.running.values()) for child in self.living)
        return f"{self.not_ready() or f'{len(self.places)} processes are ready'}, {running} jobs run"


def _has_terminal() -> bool:
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
