"""One run of one contender: a fresh server, a fresh marks file, fresh processes, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import marks
from benchmarks.environments import Environment
from benchmarks.processes import Failure, Process, end_all
from benchmarks.server import Server

PATIENCE = 330.0  # seconds; the driver itself gives up after 300
OURS = ("BENCH_", "STREAMQ_", "PYTHON")  # variables that would change what is measured

Figures = dict[str, float]


@dataclass
class Stage:
    """What a scenario works with."""

    environment: Environment
    jobs: int
    concurrency: int
    rate: float
    folder: Path
    env: dict[str, str]
    server: Server
    side: frozenset[int]  # the cores of workers and drivers; empty: all
    processes: ExitStack
    starts: memoryview[float]
    workers: list[Process] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def _start(self, name: str, verb: str) -> Process:
        env = self.env | {
            "BENCH_URL": self.server.url,
            "BENCH_CONCURRENCY": str(self.concurrency),
            "BENCH_JOBS": str(self.jobs),
            "BENCH_RATE": str(self.rate),
        }
        name = f"{name}-{next(self.numbers)}"
        process = Process(name, self.environment.command(verb), folder=self.folder, env=env, cores=self.side)
        self.processes.callback(process.stop)
        return process

    def start_workers(self, number: int = 1) -> None:
        """They may still be starting up when this returns: `warm()`, or wait for marks."""
        self.workers += [self._start("worker", "worker") for _ in range(number)]

    def send(self, number: signal.Signals) -> None:
        """To all workers."""
        for worker in self.workers:
            worker.send(number)

    def end_workers(self) -> None:
        """Let them leave as they would in a deployment."""
        while self.workers:
            self.workers.pop().stop(grace=15)

    def start_driver(self, verb: str) -> Process:
        """One verb of `drive.py`; `answer` waits for it."""
        return self._start(verb, verb)

    def answer(self, driver: Process) -> dict[str, Any]:
        """What it prints, as soon as it is printed. Raises `Failure`, at once if a worker ends meanwhile."""
        deadline = time.perf_counter() + PATIENCE
        while not (said := driver.output()).endswith("\n"):
            for worker in self.workers:
                worker.check()
            if driver.ended is not None and not driver.output().endswith("\n"):
                driver.check()
            if time.perf_counter() > deadline:
                raise Failure(f"the {driver.name} is not done after {PATIENCE:g} s")
            time.sleep(0.005)
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        if reason := answer.get("unsupported"):
            raise Failure(f"not supported: {reason}")
        return answer

    def drive(self, verb: str) -> dict[str, Any]:
        """Run one verb to its end."""
        driver = self.start_driver(verb)
        answer = self.answer(driver)
        driver.stop()
        return answer

    def warm(self) -> None:
        """Wait until the workers take jobs from the empty queue."""
        self.drive("warm")

    def wait_for_starts(self, jobs: int) -> None:
        """Until job 0 to `jobs` - 1 have started."""
        deadline = time.perf_counter() + PATIENCE
        for i in range(jobs):  # each is looked at until it is set: one pass over all of them
            while not self.starts[i]:
                self._pause(deadline)

    def wait_for_first_start(self) -> None:
        """Until any job has started; looks at the first ones, which start early in any order."""
        deadline = time.perf_counter() + PATIENCE
        while not any(self.starts[:512]):
            self._pause(deadline)

    def _pause(self, deadline: float) -> None:
        for worker in self.workers:
            worker.check()
        if time.perf_counter() > deadline:
            raise Failure(f"jobs do not start within {PATIENCE:g} s")
        time.sleep(0.001)

    def meter(self) -> Callable[[], Figures]:
        """CPU and commands from now on; called, it gives them for each job."""

        def read() -> dict[str, float]:
            return {
                "worker_cpu_us": sum(worker.cpu_seconds() for worker in self.workers) * 1e6,
                "server_cpu_us": self.server.process.cpu_seconds() * 1e6,
                "server_commands": self.server.commands(),
            }

        before = read()

        def figures() -> Figures:
            spent = {name: (value - before[name]) / self.jobs for name, value in read().items()}
            return spent if self.workers else {"server_cpu_us": spent["server_cpu_us"]}

        return figures

    def said(self) -> str:
        """The last words of every process, for an error. Some workers log to stdout."""
        paths = [*sorted(self.folder.glob("*.err")), *sorted(self.folder.glob("worker-*.out"))]
        words = {path.name: path.read_text(errors="replace").strip().splitlines()[-15:] for path in paths}
        return "".join(f"\n[{name}]\n" + "\n".join(lines) for name, lines in words.items() if lines)


@contextmanager
def stage(environment: Environment, *, jobs: int, concurrency: int, rate: float, pinned: bool) -> Iterator[Stage]:
    """Set up, and tear down whatever happens. Raises `Failure` with the last words of the processes."""
    cores = sorted(os.sched_getaffinity(0))
    pinned = pinned and len(cores) > 1
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as processes:
        folder, path = Path(name), f"{name}/marks"
        marks.create(path, max(jobs, 1_000))
        starts = marks.attach(path)
        processes.callback(starts.release)
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {"BENCH_MARKS": path}
        processes.callback(end_all, f"BENCH_MARKS={path}")
        server = Server(folder, env, frozenset(cores[:1] if pinned else ()))
        processes.callback(server.close)
        server.wait()
        side = frozenset(cores[1:2] if pinned else ())
        set_up = Stage(environment, jobs, concurrency, rate, folder, env, server, side, processes, starts)
        try:
            yield set_up
        except Exception as error:
            cause = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            raise Failure(cause + ("" if cause.startswith("not supported") else set_up.said())) from error
