"""The worker that is measured: a process of its own, `streamq worker` as its users run it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, Final

from streamq.cli.bench import tasks
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.core.options import DEFAULT_QUEUE
from streamq.worker.alive import alive, causes

STUCK: Final = 30.0  # seconds without any progress
STOP_WITHIN: Final = 5.0  # seconds
TARGET: Final = f"{tasks.__name__}:app"


@dataclass(slots=True)
class Hand:
    """The worker process. It serves no queue before `go()`."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    name: str = "bench-worker"

    async def ready(self) -> None:
        """Wait until it is connected. Raises `Stopped`."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(STUCK):
                said = await asyncio.to_thread(self.process.stdout.read, 1)
        except TimeoutError:
            raise Stopped(Screen(f"the worker is not ready after {STUCK:g} s"), Exit.TIMED_OUT) from None
        if said != tasks.READY:
            self.process.wait()
            self.check()

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which `run` will see
            os.write(self.process.stdin.fileno(), b"+")

    def check(self) -> None:
        """Raises `Stopped` with its last words if it ended by itself."""
        if (code := self.process.poll()) is not None:
            self.log.seek(0)
            words = self.log.read().decode(errors="replace").splitlines()[-8:]
            raise Stopped(Screen(f"the worker ended with code {code}", cause="\n".join(words)), Exit.FAILED)

    async def run(self) -> None:
        """Watch it. Raises `Stopped` when it has ended."""
        while True:
            self.check()
            await asyncio.sleep(0.1)

    async def usage(self) -> tuple[float, float, float]:
        """What it says of itself: see `bench.tasks.usage`."""
        job = await tasks.usage.enqueue()
        return await job.result(timeout=STUCK)

    async def end(self) -> None:
        """Let it say goodbye, so that nothing of it is on its way to Redis any more; or kill it."""
        self.process.terminate()
        self.go()
        for _ in range(int(STOP_WITHIN / 0.01)):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.01)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@asynccontextmanager
async def working(concurrency: int) -> AsyncGenerator[Hand]:
    """A worker that is connected and waits for `go()`; it is gone at the end. Raises `Stopped` if it ends before."""
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)  # it finds the modules that this process finds
    command = [sys.executable, "-P", "-m", "streamq", "worker", TARGET]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - nothing is measured now; this Python, this package
            [*command, "-Q", DEFAULT_QUEUE, "-c", str(concurrency), "-l", "warning"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, "STREAMQ_URL": tasks.app.broker.connections.url_for_children},
            start_new_session=True,  # Ctrl-C is for the producer, which takes its worker down itself
        )
        hand = Hand(process, log)
        try:
            await hand.ready()
            async with alive([hand]):
                yield hand
        except BaseExceptionGroup as group:
            raise next(causes(group)) from None
        finally:
            await hand.end()
