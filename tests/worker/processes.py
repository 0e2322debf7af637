"""Worker processes, and a Redis of a test's own that can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis

from tests.conftest import PROGRAMS

Process = asyncio.subprocess.Process


@asynccontextmanager
async def victim(url: str, namespace: str, ledger: Path, grace: float = 0.2) -> AsyncIterator[Process]:
    script = str(Path(__file__).with_name("victim.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, url, namespace, str(ledger), str(grace), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


class Redis:
    """A server that keeps every write, on a socket that stays the same over `kill` and `start`.

    with Redis() as server:
        server.kill()
        server.start()
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="streamq-test-")
        self._socket = Path(self._folder.name) / "s"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *(PROGRAMS.get("redis") or next(iter(PROGRAMS.values())), "--port", "0", "--save", ""),
                *("--dir", self._folder.name, "--unixsocket", str(self._socket), "--logfile", "log"),
                *("--appendonly", "yes", "--appendfsync", "always"),
            ]
        )
        while True:
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
                client.ping()
                return

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self._folder.cleanup()
