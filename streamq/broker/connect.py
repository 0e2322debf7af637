"""Everything of one process that is connected to one broker, wherever its servers are."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from redis import Redis
from redis import exceptions as refused
from redis.asyncio.client import PubSub
from redis.asyncio.connection import AbstractConnection

from streamq.broker.address import Address, redact
from streamq.broker.diagnosis import TRANSIENT, describe, diagnose, is_foreign, is_full, is_transient
from streamq.broker.embedded import EmbeddedServer, shared
from streamq.broker.exchange import Reply
from streamq.broker.line import Line
from streamq.broker.nodes import Key, Nodes, OneServer, nodes_of
from streamq.broker.wires import ANSWER_TIMEOUT, blocking_client, subscription, wire

__all__ = [
    "TRANSIENT",
    "Address",
    "Connections",
    "Line",
    "Reply",
    "describe",
    "diagnose",
    "is_foreign",
    "is_full",
    "is_transient",
    "redact",
]

LOOK_EVERY: Final = 1.0  # seconds between two questions where the keys are
LOOK_AGAIN: Final = 0.1  # the least between two, when a server is suspected to have lost them
logger = logging.getLogger("streamq.broker")


class Connections:
    """What is open, and to which server.

        connections = Connections("redis://localhost:6379/0")
        await connections.open()
        line = connections.line(connections.home("a key"))
        await connections.close()

    Raises `ConfigurationError` for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self.nodes: Nodes = nodes_of(self.address)  # where the keys are
        self._server: EmbeddedServer | None = None
        self._opening = asyncio.Lock()
        self._lines: list[tuple[str, Line]] = []
        self._subscriptions: dict[PubSub, str] = {}  # and the URL of their server
        self._clients: list[Redis] = []
        self._watching: asyncio.Task[None] | None = None
        self._suspicion = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Connections {self.address}>"

    def home(self, key: Key) -> Address:
        """The server that has a key. Raises `BrokerError` if it is an embedded server that was not started."""
        return self.nodes.home(key)

    async def open(self) -> None:
        """Start or join the embedded server, if the URL asks for one, or ask where the servers are.

        The lines connect by themselves. Raises `BrokerUnavailable` if it does not start, `ConfigurationError` if there
        is none to start, what redis-py raises if nobody says where the servers are.
        """
        async with self._opening:
            if self.address.scheme == "embedded" and self._server is None:
                self._started(await _start(self.address.path or None))
            if self.nodes.may_move and self._watching is None:
                await asyncio.to_thread(self.nodes.look)
                self._watching = asyncio.create_task(self._watch(), name="streamq nodes")

    # ---- what is given out ------------------------------------------------------------------------------------

    def line(self, node: Address | None = None) -> Line:
        """A new connection for commands, to any server if none is named; it connects at its first call."""
        node = node or self.home("")
        embedded = self.address.scheme == "embedded"  # it can be started anew, on another socket

        def make() -> AbstractConnection:
            return wire(self.home("") if embedded else node)

        shared_folder = embedded and bool(self.address.path)
        take_over = self._take_over if shared_folder else None
        line = Line(make, self._shown(node), self._stray, take_over, patient=self.nodes.may_move)
        self._lines = [*(each for each in self._lines if not each[1].closed), (node.url, line)]
        return line

    def sync_client(self, node: Address | None = None, timeout: float = ANSWER_TIMEOUT) -> Redis:
        """A blocking client for one thread: raw replies, `timeout` seconds a command, nothing sent twice."""
        client = blocking_client(node or self.home(""), timeout)
        self._clients.append(client)
        return client

    def pubsub(self, key: Key = "") -> PubSub:
        """Subscriptions on a connection of their own, with undecoded messages.

        Reading waits as long as `get_message(timeout=...)` says; the server is pinged when a read begins
        after 10 silent seconds, so read with a timeout. After an error close it and take another: the channels may have
        moved. In a cluster every server passes every message on, so the home of one `key` will do.
        """
        node = self.home(key)
        made = subscription(node)
        self._subscriptions[made] = node.url
        return made

    @asynccontextmanager
    async def subscribed(self, *channels: bytes | str) -> AsyncGenerator[PubSub]:
        """`pubsub` with these channels, closed at the end."""
        made = self.pubsub(channels[0])
        try:
            await made.subscribe(*channels)
            yield made
        finally:
            self._subscriptions.pop(made, None)
            await made.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close all that was given out and let go of the embedded server. Calling it again does nothing."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        for _, line in self._lines:
            await line.close()
        for made in list(self._subscriptions):
            await made.aclose()  # type: ignore[no-untyped-call]
        for client in self._clients:
            client.close()
        self.nodes.close()
        self.nodes = nodes_of(self.address)
        server, self._server = self._server, None
        if server is not None:
            try:
                await asyncio.to_thread(server.stop)
            except RuntimeError:  # the interpreter is on its way out, and starts no thread any more
                server.stop()

    @property
    def url_for_children(self) -> str:
        """The URL for another process of this application: of the embedded server, its socket."""
        return self.address.url if self.address.scheme != "embedded" else self.home("").url

    def _shown(self, node: Address) -> str:
        return str(self.address if self.address.scheme == "embedded" else node)

    # ---- servers that come and go -------------------------------------------------------------------------------

    def _stray(self, error: refused.ResponseError) -> None:
        """A server has lost its keys: to another one, or because it is no master any more."""
        if isinstance(error, refused.MovedError):
            self.nodes.moved(error)
        self._suspicion.set()

    async def _watch(self) -> None:
        """Ask again and again where the keys are, and leave the servers that have none any more.

        A connection to a master that stands still would otherwise be noticed when a call is late, which is 5 seconds,
        or 10 for a blocking read.
        """
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                async with asyncio.timeout(LOOK_EVERY - LOOK_AGAIN):
                    await self._suspicion.wait()
            except TimeoutError:
                pass
            self._suspicion.clear()
            try:
                await asyncio.to_thread(self.nodes.look)
            except Exception as error:  # noqa: BLE001 - whoever needs a server says so; this must go on
                logger.debug("cannot ask where the servers of %s are: %s", self.address, error)
            await self._leave()

    async def _leave(self) -> None:
        here = {node.url for node in self.nodes.all()}
        for url, line in self._lines:
            if url not in here and not line.closed:
                logger.info("%s is no master any more", line.where)
                await line.retire()
        for made, url in list(self._subscriptions.items()):
            connection: AbstractConnection | None = made.connection
            if url not in here and connection is not None:
                await connection.disconnect(nowait=True)

    def _started(self, server: EmbeddedServer) -> None:
        self._server, self.nodes = server, OneServer(Address.parse(server.url))

    async def _take_over(self) -> None:
        """The process that started the server of a shared folder may have ended: then it is started here."""
        async with self._opening:
            server = self._server
            if server is None or await asyncio.to_thread(_listens, server.url.removeprefix("unix://")):
                return
            await asyncio.to_thread(server.stop)
            self._started(await _start(self.address.path))


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


async def _start(directory: str | None) -> EmbeddedServer:
    starting = asyncio.ensure_future(asyncio.to_thread(shared, directory))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The thread goes on: what it starts belongs to nobody.
        starting.add_done_callback(_stop_unwanted)
        raise


def _stop_unwanted(starting: asyncio.Future[EmbeddedServer]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().stop()
