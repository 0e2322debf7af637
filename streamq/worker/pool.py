"""Child processes for tasks with `executor="process"`: killed at their limit, and never left behind.

anyio.to_process and concurrent.futures do not do here: their children get the terminal's Ctrl-C and outlive a worker
that is killed, anyio's have no stderr, one that crashes says nothing or takes the whole pool along, and both pickle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import msgspec
from msgspec import Raw

from streamq.client.executor import main_module
from streamq.errors import ChildCrashed, ConfigurationError
from streamq.worker import pool_child
from streamq.worker.log import JsonFormatter, TextFormatter
from streamq.worker.pool_child import LENGTH, Hello, Order, Reply
from streamq.worker.remote import rebuilt

logger = logging.getLogger("streamq.worker")

START_WITHIN: Final = 60.0  # seconds to start Python and to import the module of the first call
END_WITHIN: Final = 2.0  # seconds for an idle child to run its atexit functions
_BOOT: Final = "import sys; sys.path[:] = sys.argv[3:]; from streamq.worker.pool_child import main; main()"


class Child:
    """One process, which runs one call at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, hello: Hello) -> Child:
        """A new process that is ready for its first call. Raises `ChildCrashed`, OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # In this thread: the child dies with the thread that made it.
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), str(os.getpid()), *map(str, sys.path)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C at the terminal is for the worker, which drains
                )
            except BaseException:
                ours.close()
                raise
        child = cls(process, *await asyncio.open_unix_connection(sock=ours))
        try:
            async with asyncio.timeout(START_WITHIN):
                await child.ask(msgspec.msgpack.encode(hello))
        except TimeoutError:
            await child.kill()
            raise ChildCrashed(f"a child process was not ready after {START_WITHIN:g} s") from None
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked. One that is idle says nothing: what can be read now is its end."""
        if self._process.returncode is not None or self._reader.at_eof():
            return False
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def ask(self, frame: bytes) -> bytes:
        """Send a frame and wait for the answer. Raises `ChildCrashed`."""
        try:
            self._writer.write(LENGTH.pack(len(frame)))
            self._writer.write(frame)
            await self._writer.drain()
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return await self._reader.readexactly(length)
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None) from None  # where the worker waited says nothing about the task
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ChildCrashed(await self._epitaph()) from None

    async def _epitaph(self) -> str:
        try:
            async with asyncio.timeout(END_WITHIN):
                code = await self._process.wait()
        except TimeoutError:
            return f"the child process {self.pid} closed its connection to the worker before the task ended"
        if code >= 0:
            return f"the child process {self.pid} ended with exit code {code} before the task did"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        hint = ": the system may have run out of memory" if -code == signal.SIGKILL else ""
        return f"the child process {self.pid} ended with signal {-code} ({name}) before the task did{hint}"

    async def kill(self) -> None:
        """SIGKILL, to it and to what it has started; returns when it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._writer.close()
        await self._process.wait()

    async def end(self) -> None:
        """Let it end by itself, which it does when the connection is closed; else kill it."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN):
                await self._process.wait()
        await self.kill()


class Pool:
    """At most `size` children at once (0: one for each core). One that is idle is kept for the next call.

    result = await pool.call(order, nullcontext)
    """

    name = "pool"

    def __init__(self, size: int = 0) -> None:
        if pool_child.inside():
            raise ConfigurationError(
                "A worker is started in a child process of another one, which imports this module to find a task: put "
                'what starts the worker under if __name__ == "__main__":.'
            )
        self.pids: dict[str, int] = {}  # of the running jobs
        self._places = asyncio.Semaphore(size or _cores())
        self._idle: list[Child] = []
        self._closed = False
        self._main = main_module()

    async def run(self) -> None:
        """Live until cancelled; then end the children that are idle. The others end with their jobs."""
        try:
            await asyncio.Event().wait()
        finally:
            self._closed = True
            idle, self._idle = self._idle, []
            await asyncio.gather(*(child.end() for child in idle))

    async def call(self, order: Order, limit: Callable[[], AbstractContextManager[object]]) -> Raw:
        """Run it in a child, inside of `limit`, and give its encoded result. Raises what the function raised.

        Waits for a place first. The child of a cancelled call is killed. Raises `ChildCrashed` for one that ended.
        """
        async with self._places:
            child = await self._child(order.module)
            self.pids[order.job_id] = child.pid
            try:
                with limit():
                    answer = await child.ask(msgspec.msgpack.encode(order))
            except BaseException:
                await child.kill()
                raise
            finally:
                del self.pids[order.job_id]
            if self._closed:
                await child.end()
            else:
                self._idle.append(child)
        reply = msgspec.msgpack.decode(answer, type=Reply)
        if reply.raised is not None:
            raise rebuilt(reply.raised, self._main)
        return reply.result

    async def _child(self, module: str) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            logger.warning("the idle child process %d is gone", child.pid)
            await child.kill()
        return await Child.start(_hello(module))


def _hello(module: str) -> Hello:
    root = logging.getLogger()
    kinds = {type(handler.formatter) for handler in root.handlers}
    if not kinds & {JsonFormatter, TextFormatter}:
        return Hello(module)  # the host's logging is the host's: its module may set it up in the child too
    return Hello(module, logging.getLevelName(root.level), "json" if JsonFormatter in kinds else "text")


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:  # noqa: RET505 - for the type checkers
        return os.cpu_count() or 1
