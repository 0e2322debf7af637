"""A fresh redis-server for every run: loopback, without persistence. And what it says of its work."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import redis

from benchmarks.processes import Failure, Process


def _binary() -> str:
    if binary := shutil.which("redis-server") or shutil.which("valkey-server"):
        return binary
    raise SystemExit("no redis-server on PATH: apt-get install redis-server (the embedded one is built for size)")


def server_version() -> str:
    """As `redis-server 7.0.15`."""
    said = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", said)
    return f"{Path(_binary()).name} {found[1] if found else said.strip()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A running server, asked over one connection."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        cores: frozenset[int] = frozenset(),
        *,
        name: str = "server",
        port: int = 0,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port or _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        usual = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
        command = [_binary(), *usual, "--loglevel", "warning", *options]
        self.process = Process(name, command, folder=folder, env=env, cores=cores)
        self._client = redis.Redis(port=self.port)
        self._asked = 0

    def wait(self) -> None:
        """Until it answers. Raises `Failure` after five seconds."""
        for _ in range(500):
            self.process.check()
            try:
                self._client.ping()
            except redis.ConnectionError:
                time.sleep(0.01)
            else:
                return
        raise Failure("the server does not answer")

    def _info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.info(section)
        return found

    def commands(self) -> int:
        """Commands so far, those inside scripts counted and those of this object not."""
        stats = self._info("commandstats")
        self._asked += 1
        return sum(int(each["calls"]) for each in stats.values()) - self._asked + 1

    def keep_no_histograms(self) -> None:
        """A command's histogram of latencies takes some 50 KB at its first use."""
        self._client.config_set("latency-tracking", "no")

    def memory(self) -> int:
        """Bytes in use. What Redis says its connections take lags, so ask when they have gone."""
        time.sleep(0.5)  # lazy frees, and the connections of who has just gone
        return int(self._info("memory")["used_memory"])

    def close(self) -> None:
        self._client.close()
        self.process.stop()

    @contextmanager
    def monitored(self) -> Iterator[Monitor]:
        """Count what clients send, for as long as this lasts. It slows the server down."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"MONITOR\r\n")
            monitor = Monitor(connection)
            thread = Thread(target=monitor.read)
            thread.start()
            try:
                yield monitor
            finally:
                connection.shutdown(socket.SHUT_RDWR)
                thread.join()


class Monitor:
    """Commands that arrived from clients: MONITOR marks those inside scripts, which INFO does not tell apart."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.calls = 0

    def settled(self) -> int:
        """The count when what has been sent so far has come in."""
        time.sleep(0.2)
        return self.calls

    def read(self) -> None:
        rest = b""
        while data := self._connection.recv(1 << 20):
            rest += data
            whole, _, rest = rest.rpartition(b"\r\n")
            self.calls += sum(b" lua] " not in line[:40] for line in whole.split(b"\r\n") if line)
