"""Renewing leases from a thread: blocking calls on a connection of its own, so that a blocked loop keeps its jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import msgspec
from redis import Redis
from redis.exceptions import MovedError, NoScriptError

from streamq.broker import scripts
from streamq.broker.connect import Connections
from streamq.broker.keys import Keys
from streamq.broker.scripts import Arg

_ALIVE_LEASES = 2  # a worker that did not say so for this many leases is believed dead


class Held(NamedTuple):
    """One entry that a worker holds: the fence without the consumer's name."""

    priority: int
    entry: str
    deliveries: int
    job_id: str


class Renewal(NamedTuple):
    """The ids whose lease is gone, and those to be cancelled with the reason."""

    lost: list[str]
    cancelled: dict[str, str]


class Renewer:
    """For one thread. Any failure is raised as redis-py raises it.

    The next call looks where the keys are, and connects anew.
    """

    def __init__(
        self, connections: Connections, timeout: float, keys: Callable[[str], Keys], now: Callable[[], Arg]
    ) -> None:
        self._connections = connections
        self._timeout = timeout  # seconds a call
        self._keys = keys
        self._now = now
        self._clients: dict[str, Redis] = {}  # by the server's URL
        self._doubtful = False

    def renew(self, queue: str, consumer: str, held: Sequence[Held], info: bytes, lease_ms: int) -> Renewal:
        """Renew what is still ours, in one round trip, and say that the worker lives."""
        k = self._keys(queue)
        call = scripts.renew(
            streams=k.streams, side=k.side, workers=k.workers, worker_info=k.worker_info, now=self._now(),
            consumer=consumer, alive_for=lease_ms * _ALIVE_LEASES, info=info, held=msgspec.msgpack.encode(held),
        )  # fmt: skip
        lost, cancelled, reasons = cast("tuple[list[bytes], list[bytes], list[bytes]]", self._run(call))
        pairs = zip(cancelled, reasons, strict=True)
        return Renewal([i.decode() for i in lost], {i.decode(): r.decode() for i, r in pairs})

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _run(self, call: scripts.ScriptCall) -> object:
        if self._doubtful:
            self._connections.nodes.look()
            self._doubtful = False
        nodes = self._connections.nodes
        for gone in self._clients.keys() - {node.url for node in nodes.all()}:  # asked to make room for another master
            self._clients.pop(gone).close()
        home = nodes.home(call.keys[0])
        client = self._clients.get(home.url)
        if client is None:
            client = self._clients[home.url] = self._connections.sync_client(home, self._timeout)
        execute = client.execute_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        send = cast("Callable[..., object]", execute)
        try:
            try:
                return send(*call.evalsha())
            except NoScriptError:
                return send(*call.eval())
        except Exception as error:
            self._doubtful = True
            client.close()  # and kept: a new one for each try of an outage would pile up
            if isinstance(error, MovedError):
                self._connections.nodes.moved(error)
            raise
