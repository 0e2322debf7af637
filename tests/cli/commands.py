"""`streamq worker` as a process of a test, and a producer beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from streamq import StreamQ
from tests.worker.crews import until

READY = "worker processes are ready"


class Command:
    """One `streamq worker`, its log in a file, in a process group of its own as a shell makes it."""

    def __init__(self, folder: Path, environ: dict[str, str], words: tuple[str, ...], *under: str) -> None:
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "streamq", "worker", *words],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    async def says(self, text: str, times: int = 1) -> None:
        def enough() -> bool:
            assert self.process.poll() is None or self.said.count(text) >= times, self.said
            return self.said.count(text) >= times

        await until(enough)

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None)
        return self.process.returncode

    @property
    def children(self) -> list[int]:
        return [
            int(found)
            for found in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def kill(self) -> None:
        """With all its children; nothing of it is left."""
        for pid in [*(self.children if self.process.poll() is None else []), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        found = re.search(r"health: (http://\S+)/livez", self.said)
        assert found, self.said
        request = urllib.request.Request(f"{found[1]}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


Worker = Callable[..., Command]


@asynccontextmanager
async def producer(url: str, namespace: str) -> AsyncIterator[StreamQ[Any]]:
    async with StreamQ(url, namespace=namespace, lease="1s") as app:
        yield app
