"""The workers of a trial: real processes, started as a user would, to be killed, stopped and told to go."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.trial.witness import FOLDER, PARENT

LOOK: Final = 0.02  # seconds
SOURCE: Final = str(Path(__file__).resolve().parents[3])


@dataclass(slots=True)
class Hand:
    """One worker process, in a session of its own: a signal is for all of its processes."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    held: int = 0  # jobs in its hands when it was killed

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a stopped one has not."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """To the process and to its children; one that has ended is left in peace."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: it can tidy up nothing."""
        self.killed = True
        self.signal(signal.SIGKILL)
        self.bury()

    def bury(self) -> None:
        """Wait for its end, and keep nothing of it open."""
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Pause:
    """A process stands still from now on, for so many seconds.

    Another process wakes it: whatever becomes of this one, nothing stays stopped.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._waker = subprocess.Popen(  # noqa: S603 - two numbers
            ["/bin/sh", "-c", f"sleep {seconds:.3f}; kill -CONT -{pid}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _signal_all(pid, signal.SIGSTOP)

    async def over(self) -> None:
        """Wait until it was woken."""
        await until(lambda: self._waker.poll() is not None)

    def end(self) -> None:
        """Wake it now."""
        _signal_all(self._pid, signal.SIGCONT)
        if self._waker.poll() is None:
            _signal_all(self._waker.pid, signal.SIGKILL)
            self._waker.wait()


async def until(done: Callable[[], bool], within: float = 3600.0) -> bool:
    """Wait, looking every now and then; whether it came true in time (seconds)."""
    ends = time.monotonic() + within
    while True:
        if (found := done()) or time.monotonic() > ends:
            return found
        await asyncio.sleep(LOOK)


def _signal_all(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of one that has just ended
        os.killpg(pid, number)


@dataclass(slots=True)
class Crew:
    """All worker processes of one trial. `command` gives what starts the n-th."""

    command: Callable[[int], Sequence[str]]
    environ: Mapping[str, str]
    folder: Path
    hands: list[Hand] = field(default_factory=list[Hand])

    def start(self) -> Hand:
        """One more worker, which dies with this process."""
        number = len(self.hands) + 1
        log = self.folder / f"worker-{number}.log"
        with log.open("wb") as words:
            process = subprocess.Popen(  # noqa: S603 - this Python, this package
                self.command(number),
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                cwd=self.folder,
                env=self.environ,
                start_new_session=True,  # Ctrl-C is for the trial, which takes its workers down itself
            )
        self.hands.append(Hand(number, process, log))
        return self.hands[-1]

    def check(self) -> None:
        """Raise `Stopped` with its last words if a worker ended by itself."""
        for hand in self.hands:
            if not hand.killed and hand.process.poll() not in (None, 0):
                raise Stopped(
                    Screen(
                        f"worker {hand.number} ended with code {hand.process.returncode}",
                        str(hand.log),
                        last_words(hand.log),
                    ),
                    Exit.FAILED,
                )

    async def stop(self, within: float) -> list[Hand]:
        """SIGTERM to all, and wait so many seconds; those that did not end, or not with code 0."""
        told = [hand for hand in self.hands if hand.alive]
        for hand in told:
            hand.process.send_signal(signal.SIGTERM)
        await until(lambda: not any(hand.alive for hand in told), within)
        return [hand for hand in told if hand.process.poll() != 0]

    def end(self) -> None:
        """Leave no process behind."""
        for hand in self.hands:
            hand.signal(signal.SIGKILL)
            hand.bury()


@contextmanager
def crew(command: Callable[[int], Sequence[str]], environ: Mapping[str, str], folder: Path) -> Generator[Crew]:
    """No workers yet; at the end none are left."""
    found = Crew(command, environ, folder)
    try:
        yield found
    finally:
        found.end()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a worker that keeps its book in `folder`: of all STREAMQ_* only those given count."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    path = os.pathsep.join([SOURCE, *filter(None, [clean.get("PYTHONPATH")])])
    return {**clean, "STREAMQ_CONFIG": "", FOLDER: str(folder), PARENT: "1", "PYTHONPATH": path, **more}


def worker_command(target: str, *options: str) -> list[str]:
    """`streamq worker` by this interpreter."""
    return [sys.executable, "-m", "streamq", "worker", target, *options]


def last_words(log: Path, lines: int = 8) -> str:
    """The end of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
