"""A process of one run, in a session of its own: its children end with it, and its CPU time is theirs too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failure(Exception):
    """A run that cannot give its figures."""


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What is started here runs on these cores only; on all of them if none is named."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _sessions() -> Iterator[tuple[int, int, list[str]]]:
    """Pid, session and the fields of /proc/PID/stat from the state on, of every process that is no zombie."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            fields = stat.rsplit(")", 1)[1].split()
            if fields[0] != "Z":
                yield int(name), int(fields[3]), fields


def end_all(variable: str) -> None:
    """End what was started with this `NAME=value` in its environment and is still there, in whatever session."""
    while left := [pid for pid, _, _ in _sessions() if _environment_has(pid, variable)]:
        for pid in left:
            _kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _environment_has(pid: int, variable: str) -> bool:
    try:
        return variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it has just ended, or is not ours


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


class Process:
    """A running command; its stdout and stderr go to files in `folder`, a temporary one."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        cores: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self._stopped = False
        self._out = folder / f"{name}.out"
        with self._out.open("wb") as out, (folder / f"{name}.err").open("wb") as err, on_cores(cores):
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    def _members(self) -> Iterator[tuple[int, list[str]]]:
        return ((pid, fields) for pid, session, fields in _sessions() if session == self._process.pid)

    def cpu_seconds(self) -> float:
        """User and system time of the session so far, children that have ended included."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self._members()) / TICKS

    def rss_mib(self) -> float:
        """Resident memory; pages that several processes of the session share count for each."""
        return sum(int(fields[21]) for _, fields in self._members()) * PAGE / 2**20

    def settle(self, limit: float = 60) -> None:
        """Wait until it uses less than a tenth of a core: it has started up and waits for work."""
        deadline, before = time.perf_counter() + limit, float("-inf")
        while (now := self.cpu_seconds()) - before > 0.03 or not now:
            before = now
            self.check()
            if time.perf_counter() > deadline:
                raise Failure(f"the {self.name} is still busy after {limit:g} s")
            time.sleep(0.3)

    def check(self) -> None:
        """Raises `Failure` if it has ended."""
        if (code := self._process.poll()) is not None:
            raise Failure(f"the {self.name} ended by itself (exit {code})")

    def output(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def ended(self) -> int | None:
        """Its exit code; None as long as it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """A signal to the whole session."""
        for pid, _ in self._members():
            _kill(pid, number)

    def stop(self, grace: float = 0) -> None:
        """End it and its children: SIGTERM to the process and `grace` seconds, then SIGKILL to the session."""
        if self._stopped:
            return  # its number may be somebody else's by now
        if grace and self.ended is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        while any(True for _ in self._members()):
            self.send(signal.SIGKILL)
            self._process.poll()
            time.sleep(0.005)
        self._process.wait()
        self._stopped = True
