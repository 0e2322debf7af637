"""Several servers that belong together: started at once, ready together, and all gone at the end."""

from __future__ import annotations

import asyncio
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import redis

from tests.topologies.access import Access
from tests.topologies.node import READY_WITHIN, Node, folder_of_its_own, until


class Topology(ABC):
    """Its `nodes` hold data; whoever else belongs to it is among `servers` too."""

    def __init__(self, kind: str, access: Access | None) -> None:
        self.kind = kind
        self.access = access or Access()
        self.folder = folder_of_its_own()
        self.servers: list[Node] = []

    def _node(self, config: Mapping[str, str], *, sentinel: bool = False) -> Node:
        folder = self.folder / str(len(self.servers))
        self.servers.append(Node(self.kind, config, access=self.access, sentinel=sentinel, folder=folder))
        return self.servers[-1]

    @property
    def nodes(self) -> list[Node]:
        return [each for each in self.servers if not each.sentinel]

    @property
    def url(self) -> str:
        return self.url_of()

    @abstractmethod
    def url_of(self, user: str = "", password: str | None = None) -> str:
        """The same place for another user; None is the password that every server knows."""

    @abstractmethod
    def _form(self) -> None:
        """Make of started servers what they shall be, where their files do not say it."""

    @abstractmethod
    def _mend(self) -> None:
        """Hasten what the servers would do themselves, later."""

    @abstractmethod
    def _missing(self) -> str: ...

    def missing(self) -> str:
        """What is not yet as it should be; nothing when all is well."""
        try:
            return self._missing()
        except redis.RedisError as error:
            return f"an answer: {error}"

    def start(self) -> None:
        """Start all, and wait until nothing is missing; if it fails, nothing is left behind."""
        try:
            self._start()
            self._form()
            self.wait(READY_WITHIN)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        first, *others = self.servers
        first.start()  # a replica whose master does not answer yet asks again a second later
        for each in others:
            each.spawn()
        for each in others:
            each.ready()

    def wait(self, within: float) -> None:
        """Wait until nothing is missing."""
        until(lambda: not (self.missing() or self._behind()), within, lambda: self.missing() or self._behind())

    def _behind(self) -> str:
        """A replica that has not loaded yet what it was sent, though its master counts it as online."""
        found = [(node, node.call("INFO", "replication")) for node in self.nodes if node.running]
        return ", ".join(f"{node} follows" for node, said in found if said.get("master_link_status", "up") != "up")

    def settle(self, within: float = READY_WITHIN) -> None:
        """Continue who was stopped, start who was killed, and wait until nothing is missing.

        Roles stay as they are; a master that nobody has replaced comes back with what its AOF has, or empty.
        """
        for each in self.servers:
            if each.stopped:
                each.signal(signal.SIGCONT)
            elif not each.running:
                each.start()
        self._mend()
        self.wait(within)

    def broadcast(self, *command: str | int) -> list[Any]:
        """Send it to every running node that holds data: users, for instance, are not replicated."""
        return [node.call(*command) for node in self.nodes if node.running]

    def at(self, port: int) -> Node:
        return next(each for each in self.servers if each.port == port)

    def close(self) -> None:
        with ExitStack() as last:
            last.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for each in self.servers:
                last.callback(each.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:  # the thread goes on: what it starts must be ended too
            await asyncio.wait([starting])
            await asyncio.to_thread(self.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)


def synced(master: Node, replicas: int) -> bool:
    """Whether so many replicas have what the master had, and follow what it writes."""
    found = master.call("INFO", "replication")
    states = [found[f"slave{index}"]["state"] for index in range(int(found["connected_slaves"]))]
    return found["role"] == "master" and states.count("online") >= replicas
