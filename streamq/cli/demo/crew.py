"""The demo's workers: real processes, started as a user would, and one of them killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streamq.cli.demo.tasks import FOLDER, PARENT, QUEUE
from streamq.cli.exits import Exit, Screen, Stopped

CONCURRENCY: Final = 40
STOP_WITHIN: Final = 8.0  # seconds


@dataclass(slots=True)
class Hand:
    """One worker process."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    held: int = 0  # jobs in its hands when it was killed

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@dataclass(slots=True)
class Crew:
    """All worker processes of one demo."""

    url: str
    folder: Path
    hands: list[Hand] = field(default_factory=list[Hand])

    def start(self) -> Hand:
        """One more worker, which dies with this process."""
        number = len(self.hands) + 1
        log = self.folder / f"worker-{number}.log"
        source = str(Path(__file__).resolve().parents[3])
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
        environ |= {
            "STREAMQ_URL": self.url,
            "STREAMQ_CONFIG": "",  # no file of a project counts
            FOLDER: str(self.folder),
            PARENT: "1",
            "PYTHONPATH": os.pathsep.join([source, *filter(None, [environ.get("PYTHONPATH")])]),
        }
        command = [sys.executable, "-m", "streamq", "worker", "streamq.cli.demo.tasks:app"]
        with log.open("wb") as words:
            process = subprocess.Popen(  # noqa: S603 - this Python, this package
                [*command, "-Q", QUEUE, "-c", str(CONCURRENCY), "-l", "warning", "--name", f"worker-{number}"],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                cwd=self.folder,
                env=environ,
                start_new_session=True,  # Ctrl-C is for the demo, which takes its workers down itself
            )
        self.hands.append(Hand(number, process, log))
        return self.hands[-1]

    def kill(self, hand: Hand, held: int) -> None:
        """SIGKILL: it can tidy up nothing."""
        hand.killed, hand.held = True, held
        hand.process.kill()
        hand.process.wait()

    def check(self) -> None:
        """Raise `Stopped` with its last words if a worker ended by itself."""
        for hand in self.hands:
            if not hand.killed and hand.process.poll() not in (None, 0):
                raise Stopped(
                    Screen(
                        f"worker {hand.number} of the demo ended with code {hand.process.returncode}",
                        str(hand.log),
                        last_words(hand.log),
                    ),
                    Exit.FAILED,
                )

    async def stop(self) -> None:
        """SIGTERM to all, and wait. Raises `Stopped` if one does not end, or not with code 0."""
        alive = [hand for hand in self.hands if not hand.killed]
        for hand in alive:
            if hand.process.poll() is None:
                hand.process.send_signal(signal.SIGTERM)
        for _ in range(int(STOP_WITHIN / 0.02)):
            if all(hand.process.poll() is not None for hand in alive):
                break
            await asyncio.sleep(0.02)
        self.check()
        for hand in alive:
            if hand.process.poll() is None:
                raise Stopped(Screen(f"worker {hand.number} did not end at SIGTERM", str(hand.log)), Exit.FAILED)

    def end(self) -> None:
        """Leave no process behind."""
        for hand in self.hands:
            if hand.process.poll() is None:
                hand.process.kill()
            hand.process.wait()
            if hand.process.stdin is not None:
                hand.process.stdin.close()


@contextmanager
def crew(url: str, folder: Path) -> Generator[Crew]:
    """No workers yet; at the end none are left."""
    found = Crew(url, folder)
    try:
        yield found
    finally:
        found.end()


def last_words(log: Path, lines: int = 8) -> str:
    """The end of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
