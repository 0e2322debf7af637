"""Functions that child processes run: they must stand in a module, under their own names."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from streamq import Retry, SoftTimeLimitExceeded, current, current_job_id


class Odd(ValueError):
    """One that takes more than its message."""

    def __init__(self, number: int, *, where: Path) -> None:
        super().__init__(f"{number} is odd")
        self.number = number
        self.where = where


@dataclass
class Box:
    width: int
    height: int


def square(number: int) -> int:
    return number * number


def area(box: Box, *, times: int = 1) -> Box:
    return Box(box.width * times, box.height * times)


def pid() -> int:
    return os.getpid()


def both_ids() -> tuple[str | None, bool]:
    return current_job_id.get(), current() is None


def echo(data: bytes) -> bytes:
    return data


def unserialisable() -> object:
    return object()


def fail_odd(number: int) -> None:
    raise Odd(number, where=Path("/tmp"))


def fail_locally() -> None:
    class Own(ConnectionResetError):
        pass

    raise Own(104, "reset")


def fail_as(name: str) -> None:
    raise {"exit": SystemExit(3), "cancel": asyncio.CancelledError(), "generator": GeneratorExit()}[name]


def ask_again(ledger: str) -> int:
    if note(ledger) == 1:
        raise Retry(countdown=0.01, reason="not yet")
    return os.getpid()


def hang(ledger: str) -> None:
    """CPU in C code that does not let signals in: nothing but SIGKILL ends it."""
    note(ledger)
    while True:
        sum(range(10**7))


def sleep_and_tidy(ledger: str) -> str:
    note(ledger)
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded as error:
        return str(error)
    return "never"


def hang_with_a_child(ledger: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note(ledger, child.pid)
    time.sleep(60)


def crash(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def _linger() -> None:
    time.sleep(60)


def crash_with_a_fork(ledger: str) -> None:
    """What it forked has the socket too, and lives on."""
    child = multiprocessing.get_context("fork").Process(target=_linger)
    child.start()
    note(ledger, child.pid)
    os._exit(4)


def survive_the_worker_s_signals() -> str:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return "alive"


def note(ledger: str, *words: object) -> int:
    """Write a line, with this process' id; how many there are now."""
    with open(ledger, "a+", encoding="utf-8") as lines:
        lines.write(" ".join(map(str, (os.getpid(), *words))) + "\n")
        lines.flush()
        lines.seek(0)
        return len(lines.readlines())


def hang_once(ledger: str) -> str:
    if note(ledger) == 1:
        time.sleep(60)
    return "again"


def wait_for(path: str, ledger: str) -> int:
    note(ledger)
    while not Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


def session() -> tuple[int, int]:
    return os.getpid(), os.getsid(0)


def speak() -> None:
    print("on stdout")
    logging.getLogger("crunch").info("on stderr")
    logging.getLogger("crunch").debug("too much")


def zeros(count: int) -> bytes:
    return bytes(count)
