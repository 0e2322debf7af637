"""A supervisor's side: one worker process, started by exec, told by words in a pipe, known by what it says there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from streamq.worker.parent import VARIABLE, Spec
from streamq.worker.status import Status

MAX_LINE: Final = 1 << 20  # bytes: it names every queue
LAST_WORDS: Final = 0.5  # seconds to read what a process said before its end
SILENT: Final = 30.0  # seconds without a word: its event loop stands still


def own_command(target: str) -> list[str]:
    """The command line of a worker process: started as this one was, `python -m streamq` or a script, for one target.

    Options are not repeated: a URL on a command line is read by everybody who may run `ps`.
    """
    arguments = sys.argv[1:]
    before = len(sys.orig_argv) - len(arguments)
    known = sys.orig_argv[before:] == arguments
    return [sys.executable, *(sys.orig_argv[1:before] if known else ("-m", "streamq")), "worker", target]


class Child:
    """One worker process.

    child = await Child.start(1, command, spec, heard=...)
    if await child.became_ready():
        child.drain(margin=15.0)
    await child.ended()
    """

    def __init__(
        self,
        number: int,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Callable[[Child], None],
    ) -> None:
        self.number = number
        self.pid = process.pid
        self.status = Status()
        self.started_at = time.monotonic()
        self.heard_at = 0.0  # 0: it has not begun to speak
        self.told = ""  # "drain" or "cancel": it ends because we said so
        self.killed = False  # by us, since it did not end
        self._process = process
        self._writer = writer
        self._heard = heard
        self._ready = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._living = asyncio.create_task(self._live(reader), name=f"streamq {self}")

    @classmethod
    async def start(
        cls,
        number: int,
        command: Sequence[str],
        spec: Spec,
        environ: Mapping[str, str],
        heard: Callable[[Child], None],
    ) -> Child:
        """Start one; `heard` is called whenever it says something. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                said = msgspec.json.encode(msgspec.structs.replace(spec, pipe=theirs.fileno())).decode()
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env={**environ, VARIABLE: said},
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C at the terminal is for the supervisor, who tells its children once
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE)
        return cls(number, process, reader, writer, heard)

    def __str__(self) -> str:
        return f"worker process {self.number} (pid {self.pid})"

    # ---- what is known of it --------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Where it is in its life: starting, ready, draining."""
        if self.told or self.status.draining:
            return "draining"
        return "ready" if self.status.ready else "starting"

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken jobs."""
        return self._ready.is_set()

    @property
    def silent(self) -> bool:
        """Whether it has not spoken for so long that its event loop must stand still."""
        return bool(self.heard_at) and time.monotonic() - self.heard_at > SILENT

    async def became_ready(self) -> bool:
        """Wait until it takes jobs; False if it ended before."""
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._living}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        return self.was_ready

    async def ended(self) -> int:
        """Wait for its end: its exit code, or the negative number of the signal that ended it."""
        return await asyncio.shield(self._living)

    async def _live(self, reader: asyncio.StreamReader) -> int:
        listening = asyncio.create_task(self._listen(reader))
        code = await self._process.wait()
        await asyncio.wait({listening}, timeout=LAST_WORDS)
        listening.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        self._writer.close()
        return code

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            async for line in reader:
                self.status = msgspec.json.decode(line, type=Status)
                self.heard_at = time.monotonic()
                if self.status.ready:
                    self._ready.set()
                self._heard(self)
        except ConnectionError:
            pass

    # ---- what it is told --------------------------------------------------------------------------------------

    def drain(self, margin: float) -> None:
        """Take no more jobs and end; it is killed `margin` seconds after its grace."""
        self._tell("drain", self.status.grace + margin)

    def cancel(self, margin: float) -> None:
        """Cancel the jobs, give them back and end; it is killed in `margin` seconds."""
        self._tell("cancel", margin)

    def _tell(self, word: str, within: float) -> None:
        if self.told in (word, "cancel") or self._living.done():
            return
        self.told = word
        if self.heard_at:
            self._writer.write(f"{word}\n".encode())
        else:
            self.send(signal.SIGTERM)  # it still imports, and reads nothing
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(within, self.kill)

    def kill(self) -> None:
        """SIGKILL: its jobs wait until their leases run out."""
        self.killed = True
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal, if it is still there."""
        if not self._living.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
