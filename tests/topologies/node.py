"""One server process on a TCP port that stays its own: killed, stopped, continued, started again on its data."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamq.broker.server_process import Process
from tests.conftest import PROGRAMS
from tests.topologies.access import HOST, Access, Port

READY_WITHIN = 20.0
LOOK_EVERY = 0.02
DATA = {
    "save": '""',
    "maxmemory-policy": "noeviction",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}


def until(reached: Callable[[], bool], within: float, what: Callable[[], object] | str) -> None:
    """Wait until it is so; raises `TimeoutError` saying what is, or what was waited for."""
    deadline = time.monotonic() + within
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(LOOK_EVERY)


def table(row: list[str]) -> dict[str, str]:
    """Of a reply that names what it lists."""
    return dict(zip(row[::2], row[1::2], strict=True))


def folder_of_its_own() -> Path:
    return Path(tempfile.mkdtemp(prefix="sqt-", dir="/tmp"))


class Node:
    """A server of this kind (a name in PROGRAMS; empty: the first of them) with this configuration.

    with Node("embedded", {"appendonly": "yes"}) as node:
        node.kill()
        node.start()

    It is gone when this process is, even if it was stopped by SIGSTOP.
    """

    def __init__(
        self,
        kind: str = "",
        config: Mapping[str, str] | None = None,
        *,
        access: Access | None = None,
        sentinel: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.kind = kind or next(iter(PROGRAMS))
        self.access = access or Access()
        self.folder = folder or folder_of_its_own()
        self.folder.mkdir(exist_ok=True)
        self._ports = [Port()]
        self.port = self._ports[0].number
        self.sentinel = sentinel
        self.stopped = False
        self._process: Process | None = None
        self.password = self.access.sentinel_password if sentinel else self.access.password
        self._configure({**({} if sentinel else DATA), **(config or {})})

    def _configure(self, config: dict[str, str]) -> None:
        reached = self.access.config(self.port, password=self.password)
        if self.password and not self.sentinel:
            reached["masterauth"] = self.password
        if config.get("cluster-enabled") == "yes":
            self._ports.append(Port())
            reached["cluster-port"] = str(self.bus)
            if self.access.tls:
                reached["tls-cluster"] = "yes"
        given = {"dir": str(self.folder), "logfile": "log", **reached, **config}
        (self.folder / "conf").write_text("".join(f"{key} {value}\n" for key, value in given.items()))

    @property
    def bus(self) -> int:
        """The port where the nodes of a cluster talk with each other."""
        return self._ports[1].number

    @property
    def running(self) -> bool:
        """Whether it is started, not killed, and not stopped."""
        return self._process is not None and not self._process.gone.is_set() and not self.stopped

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return self.access.url([self.port], path="/0", password=self.password)

    def log(self) -> str:
        """The end of what it wrote."""
        texts = [path.read_text() for name in ("words", "log") if (path := self.folder / name).exists()]
        return "".join(texts)[-3000:]

    def spawn(self) -> None:
        """Start, and wait for nothing. What it knew before (roles, epochs, AOF) it reads again."""
        program = [str(PROGRAMS[self.kind]), str(self.folder / "conf"), *(["--sentinel"] if self.sentinel else [])]
        # SIGTERM, which `Process` asks for, waits as long as a server is stopped; SIGKILL does not.
        mortal = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
        self._process, self.stopped = Process([*mortal, *program], self.folder / "words", ()), False

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.spawn()
        self.ready()

    def ready(self) -> None:
        until(self._answers, READY_WITHIN, self.log)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.gone.is_set():
            raise RuntimeError(f"the server ended:\n{self.log()}")
        try:
            return bool(self.call("PING"))
        except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError):
            return False

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for instance; SIGKILL is waited for."""
        assert self._process is not None
        assert not self._process.gone.is_set(), f"{self} ended before"
        os.kill(self._process.pid, number)
        if number == signal.SIGKILL:
            assert self._process.gone.wait(READY_WITHIN)
        self.stopped = {signal.SIGSTOP: True, signal.SIGCONT: False, signal.SIGKILL: False}.get(number, self.stopped)

    def client(self, **options: Any) -> redis.Redis:
        """Raw replies, nothing sent twice; the caller closes it."""
        ca = {"ssl": True, "ssl_ca_certs": str(self.access.tls.ca)} if self.access.tls else {}
        given = {"password": self.password or None, "protocol": 2, "retry": Retry(NoBackoff(), 0), **ca, **options}
        return redis.Redis(HOST, self.port, **given)

    @cached_property
    def _asking(self) -> redis.Redis:
        client = self.client(decode_responses=True, socket_timeout=5, socket_connect_timeout=2)
        for name in set(client.response_callbacks) - {"INFO"}:
            del client.response_callbacks[name]
        return client

    def call(self, *command: str | int) -> Any:
        """Send it with all rights; replies are as they come, but text, and INFO is a dictionary."""
        return self._asking.execute_command(*command)

    def close(self) -> None:
        """Kill it, give its ports back, remove its folder."""
        if self._process is not None and not self._process.gone.is_set():
            self.kill()
        if "_asking" in self.__dict__:
            self._asking.close()
        for port in self._ports:
            port.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __repr__(self) -> str:
        return f"Node({self.kind}, {self.port}, {'running' if self.running else 'down'})"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
