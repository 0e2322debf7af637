"""Real servers of a test's own: killed, stopped, continued, and started again on what they had written."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import redis

from streamq.broker.server_process import Process, ask
from tests.conftest import PROGRAMS

READY_WITHIN = 20.0


class Server:
    """On a socket that stays the same over `kill` and `start`; it dies with this process.

    with Server(fsync="always") as server:
        server.kill()
        server.start()
    """

    def __init__(self, kind: str = "", *, fsync: str = "always", **config: str) -> None:
        self.kind = kind or next(iter(PROGRAMS))
        self.folder = Path(tempfile.mkdtemp(prefix="sq-fault-", dir="/tmp"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        given = {"port": "0", "unixsocket": str(self.socket), "dir": str(self.folder), "save": "", "logfile": "log"}
        given |= {"appendonly": "yes", "appendfsync": fsync, "maxmemory-policy": "noeviction", **config}
        self._command = [str(PROGRAMS[self.kind]), *(word for k, v in given.items() for word in (f"--{k}", v))]
        self._process: Process | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        self._process = Process(self._command, self.folder / "words", ())
        deadline = time.monotonic() + READY_WITHIN
        while not ask(self.socket, b"PING").startswith(b"+PONG"):
            assert not self._process.gone.is_set(), (self.folder / "words").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        assert self._process.gone.wait(READY_WITHIN)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and not self._process.gone.is_set():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
