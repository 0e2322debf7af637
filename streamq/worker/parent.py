"""A child's side of the pipe between it and its supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from streamq.worker.rest import rest
from streamq.worker.status import Status

VARIABLE: Final = "STREAMQ_CHILD"
TELL_EVERY: Final = 1.0  # seconds
UNREAD: Final = 65_536  # bytes: a supervisor that is stopped must not fill its children's memory
_PR_SET_PDEATHSIG: Final = 1

logger = logging.getLogger("streamq.worker")


class Spec(msgspec.Struct, omit_defaults=True):
    """What each worker process of one command is to do. It travels in the environment: `ps` shows no secrets."""

    target: str
    worker: dict[str, Any] = {}  # what `app.worker()` takes
    url: str | None = None
    loop: str = "uvloop"
    log_level: str = "info"
    log_format: str = "text"
    max_jobs: int = 0
    max_memory: int = 0  # bytes
    counted: bool = False  # somebody reads metrics
    verbose: bool = False
    processes: int = 1
    pipe: int = -1


def spec_of_child() -> Spec | None:
    """What this process is to do, if a supervisor started it. From here on it dies with its supervisor."""
    said = os.environ.pop(VARIABLE, None)
    if said is None:
        return None
    spec = msgspec.json.decode(said, type=Spec)
    os.set_inheritable(spec.pipe, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # one that died before closes the pipe
    return spec


class Parent:
    """Tells the supervisor how things stand, once a second and when `tell` is called; does what it says.

    The end of the pipe is the end of the supervisor: then the worker drains.
    """

    name = "parent"

    def __init__(
        self, pipe: int, status: Callable[[], Status], drain: Callable[[str], None], cancel: Callable[[], None]
    ) -> None:
        self._socket = socket.socket(fileno=pipe)
        self._status = status
        self._drain = drain
        self._cancel = cancel
        self._bell = asyncio.Event()

    def tell(self) -> None:
        """Say at once how things stand."""
        self._bell.set()

    async def run(self) -> None:
        """Listen and tell until cancelled, or until there is nobody any more."""
        reader, writer = await asyncio.open_unix_connection(sock=self._socket)
        telling = asyncio.create_task(self._tell(writer))
        try:
            while word := await reader.readline():
                self._obey(word.strip())
            self._drain("the supervisor is gone")
        except ConnectionError:
            self._drain("the supervisor is gone")
        except asyncio.CancelledError:
            self._write(writer)  # the last figures
            raise
        finally:
            telling.cancel()
            writer.close()

    def _obey(self, word: bytes) -> None:
        if word == b"drain":
            self._drain("the supervisor")
        elif word == b"cancel":
            logger.warning("the supervisor: the running jobs are cancelled and given back")
            self._cancel()

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._bell.clear()
            self._write(writer)
            await rest(TELL_EVERY, self._bell)

    def _write(self, writer: asyncio.StreamWriter) -> None:
        if writer.transport.get_write_buffer_size() < UNREAD:
            writer.write(msgspec.json.encode(self._status()) + b"\n")
