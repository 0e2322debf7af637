"""The process of an embedded server: born, asked and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from streamq.broker.data_folder import handing_on
from streamq.errors import BrokerUnavailable

STOP_WITHIN = 5.0  # seconds for each of SHUTDOWN, SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1


class Process:
    """The server's process, forked by a thread that waits for its end.

    PR_SET_PDEATHSIG goes off when the *thread* that forked exits: a thread of a pool would take the server
    with it.
    """

    def __init__(self, command: list[str], log: Path, keep: tuple[int, ...]) -> None:
        self.gone = threading.Event()
        born: SimpleQueue[subprocess.Popen[bytes] | BaseException] = SimpleQueue()
        work = (command, log, keep, born)
        threading.Thread(target=self._run, args=work, name="streamq-embedded", daemon=True).start()
        popen = born.get()
        if isinstance(popen, BaseException):
            raise BrokerUnavailable(f"cannot run {command[0]}: {popen}") from popen
        self.pid = popen.pid

    def _run(
        self,
        command: list[str],
        log: Path,
        keep: tuple[int, ...],
        born: SimpleQueue[subprocess.Popen[bytes] | BaseException],
    ) -> None:
        handing_on.locks = keep
        try:
            with log.open("wb") as words, warnings.catch_warnings():
                # From 3.12 on a preexec_fn beside threads is warned about; ours makes two system calls.
                warnings.simplefilter("ignore", DeprecationWarning)
                popen = subprocess.Popen(  # noqa: S603 - the program is find_server()'s or the caller's
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    pass_fds=keep,
                    start_new_session=True,  # Ctrl-C at the terminal must not stop it before the drain
                    preexec_fn=_die_with_parent(),
                )
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            born.put(error)
            return
        born.put(popen)
        popen.wait()
        self.gone.set()

    def end(self, path: Path) -> None:
        """SHUTDOWN, then SIGTERM, then SIGKILL, each only if the one before was not enough."""
        steps: tuple[Callable[[], object], ...] = (
            lambda: ask(path, b"SHUTDOWN", STOP_WITHIN),
            lambda: self._kill(signal.SIGTERM),
            lambda: self._kill(signal.SIGKILL),
        )
        for step in steps:
            if self.gone.is_set():
                return
            step()
            if self.gone.wait(STOP_WITHIN):
                return

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def before_exec() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a thread may have blocked SIGTERM
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)

    return before_exec


def ask(path: Path, command: bytes, timeout: float = 1.0) -> bytes:
    """The first bytes of the answer, none if nobody answers. Importing redis-py takes longer than a start."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(str(path))
            line.sendall(command + b"\r\n")
            return line.recv(512)
    except OSError:
        return b""
