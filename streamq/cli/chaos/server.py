"""A server that may be killed: on a socket and a folder that outlive it, with every write on the disk."""

from __future__ import annotations

import os
import shutil
import signal
from typing import Final
from urllib.parse import quote

from streamq.broker.data_folder import last_words, short_folder
from streamq.broker.embedded import find_server
from streamq.broker.server_process import Process, ask
from streamq.cli.trial.crew import Pause, until
from streamq.errors import BrokerUnavailable

OPTIONS: Final = (
    "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync always --maxmemory-policy noeviction "
    "--daemonize no --logfile server.log"
)
READY_WITHIN: Final = 20.0  # seconds


class Server:
    """It stops with the block, and leaves nothing.

    async with Server() as server: ...  # server.url
    """

    def __init__(self) -> None:
        self._program = find_server()
        self._folder = short_folder()
        self._socket = self._folder / "redis.sock"
        self._process: Process | None = None
        self._pause: Pause | None = None

    @property
    def url(self) -> str:
        """unix:// and the path of its socket."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        """Of its newest process."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start on what is there, and wait until it answers. Raises `BrokerUnavailable` with its last words."""
        self._socket.unlink(missing_ok=True)
        words = [*OPTIONS.split(), "--save", "", "--dir", str(self._folder), "--unixsocket", str(self._socket)]
        process = self._process = Process([str(self._program), *words], self._folder / "words", ())
        await until(lambda: process.gone.is_set() or ask(self._socket, b"PING").startswith(b"+PONG"), READY_WITHIN)
        if process.gone.is_set():
            raise BrokerUnavailable(f"the server did not start in {self._folder}. Its last words:\n{self.words()}")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and not self._process.gone.is_set():
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.gone.wait(READY_WITHIN)

    async def stand_still(self, seconds: float) -> None:
        """SIGSTOP for so long: half-open connections."""
        self._pause = Pause(self.pid, seconds)
        await self._pause.over()

    async def revive(self) -> None:
        """Whatever was done to it, it answers again."""
        if self._pause is not None:
            self._pause.end()
        if self._process is None or self._process.gone.is_set():
            await self.start()

    def words(self) -> str:
        """The end of its log."""
        return last_words(self._folder)

    async def __aenter__(self) -> Server:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pause is not None:
            self._pause.end()
        self.kill()  # nothing of it is kept
        shutil.rmtree(self._folder, ignore_errors=True)
