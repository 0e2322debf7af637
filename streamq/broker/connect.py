"""The only place that knows broker URLs and the connection options of redis-py."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any

from redis import ConnectionPool, Redis
from redis import connection as blocking
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import connection as streams
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ResponseError
from redis.retry import Retry

from streamq.broker.address import Address, redact
from streamq.broker.diagnosis import TRANSIENT, describe, diagnose, is_full, is_transient
from streamq.broker.embedded import EmbeddedServer, shared
from streamq.broker.exchange import Reply
from streamq.broker.line import CONNECT_TIMEOUT, Line
from streamq.errors import BrokerError, UnsuitableServer

__all__ = [
    "TRANSIENT",
    "Address",
    "Connections",
    "Line",
    "Reply",
    "ServerFacts",
    "describe",
    "diagnose",
    "info_section",
    "is_full",
    "is_transient",
    "redact",
    "suitable",
]

ANSWER_TIMEOUT = 5.0  # seconds, for the clients that have no timeout of their own
HEALTH_CHECK = 10  # seconds of silence after which a subscription pings the server
# GETEX and XAUTOCLAIM came with 6.2, EXPIRETIME with 7.0. The version strings of forks say less.
NEEDED = ("xautoclaim", "xclaim", "xpending", "xreadgroup", "getex", "expiretime")

Options = dict[str, Any]  # keyword arguments of redis-py's connections, which are not typed
# With an unacknowledged write TCP goes on trying for 15 minutes, and keepalive does not help.
_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 20_000,
}
_ASYNC_WIRES = {
    "redis": streams.Connection,
    "rediss": streams.SSLConnection,
    "unix": streams.UnixDomainSocketConnection,
}
_SYNC_WIRES: dict[str, Any] = {  # the pool is declared to take TCP connections only
    "redis": blocking.Connection,
    "rediss": blocking.SSLConnection,
    "unix": blocking.UnixDomainSocketConnection,
}


class Connections:
    """Everything of one process that is connected to one broker.

        connections = Connections("redis://localhost:6379/0")
        await connections.open()
        line = connections.line()
        await connections.close()

    Raises `ConfigurationError` for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self._server: EmbeddedServer | None = None
        self._opening = asyncio.Lock()
        self._lines: list[Line] = []
        self._subscriptions: list[PubSub] = []
        self._clients: list[Redis] = []

    def __repr__(self) -> str:
        return f"<Connections {self.address}>"

    async def open(self) -> None:
        """Start or join the embedded server, if the URL asks for one; the lines connect by themselves.

        Raises `BrokerUnavailable` if it does not start, `ConfigurationError` if there is none to start.
        """
        async with self._opening:
            if self.address.scheme == "embedded" and self._server is None:
                self._server = await _started(self.address.path or None)

    def line(self) -> Line:
        """A new connection for commands; it connects at its first call."""

        def make() -> streams.AbstractConnection:
            target = self._target()
            options = _options(target, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None)
            wire: streams.AbstractConnection = _ASYNC_WIRES[target.scheme](**options)
            return wire

        self._target()  # a mistake shows here, not at the first call
        shared_folder = self.address.scheme == "embedded" and bool(self.address.path)
        line = Line(make, str(self.address), self._take_over if shared_folder else None)
        self._lines = [*(each for each in self._lines if not each.closed), line]
        return line

    async def _take_over(self) -> None:
        """The process that started the server of a shared folder may have ended: then it is started here."""
        async with self._opening:
            server = self._server
            if server is None or await asyncio.to_thread(_listens, server.url.removeprefix("unix://")):
                return
            await asyncio.to_thread(server.stop)
            self._server = await _started(self.address.path)

    def sync_client(self, timeout: float = ANSWER_TIMEOUT) -> Redis:
        """A blocking client for one thread: raw replies, `timeout` seconds a command, nothing sent twice."""
        target = self._target()
        options = _options(target, retry=Retry(NoBackoff(), 0), socket_timeout=timeout)
        client = Redis.from_pool(ConnectionPool(connection_class=_SYNC_WIRES[target.scheme], **options))
        client.response_callbacks.clear()
        self._clients.append(client)
        return client

    def pubsub(self) -> PubSub:
        """Subscriptions on a connection of their own, with undecoded messages.

        Reading waits as long as `get_message(timeout=...)` says; the server is pinged when a read begins
        after 10 silent seconds, so read with a timeout. After a `ConnectionError` read again: it connects
        and subscribes anew.
        """
        target = self._target()
        options = _options(
            target,
            retry=AsyncRetry(NoBackoff(), 0),
            socket_timeout=ANSWER_TIMEOUT,  # for the handshake; reads of messages are exempt
            health_check_interval=HEALTH_CHECK,
        )
        pool = AsyncConnectionPool(connection_class=_ASYNC_WIRES[target.scheme], max_connections=1, **options)
        subscription = PubSub(pool)
        self._subscriptions.append(subscription)
        return subscription

    async def close(self) -> None:
        """Close all that was given out and let go of the embedded server. Calling it again does nothing."""
        for line in self._lines:
            await line.close()
        for subscription in self._subscriptions:
            await subscription.aclose()  # type: ignore[no-untyped-call]
        for client in self._clients:
            client.close()
        server, self._server = self._server, None
        if server is not None:
            try:
                await asyncio.to_thread(server.stop)
            except RuntimeError:  # the interpreter is on its way out, and starts no thread any more
                server.stop()

    @property
    def url_for_children(self) -> str:
        """The URL for another process of this application: of the embedded server, its socket."""
        return self._server.url if self._server is not None else self._target().url

    def _target(self) -> Address:
        if self.address.scheme != "embedded":
            return self.address
        if self._server is None:
            raise BrokerError(f"{self.address} is not running: open the application first (async with app)")
        return Address.parse(self._server.url)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


async def _started(directory: str | None) -> EmbeddedServer:
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


def _options(target: Address, **more: Any) -> Options:
    # RESP2: replies of one shape on every server, no push messages, no maintenance handshake.
    options: Options = {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "protocol": 2,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "driver_info": DriverInfo(name="streamq", lib_version=None),
        **more,
    }
    if target.scheme == "unix":
        return options | {"path": target.path}
    known = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    options |= {
        "host": target.host,
        "port": target.port,
        "socket_keepalive": True,
        "socket_keepalive_options": known,
    }
    if target.scheme == "rediss":
        options |= {
            "ssl_cert_reqs": "required" if target.verify else "none",
            "ssl_check_hostname": target.verify,
            "ssl_ca_certs": target.ca_certs,
            "ssl_certfile": target.certfile,
            "ssl_keyfile": target.keyfile,
        }
    return options


@dataclass(frozen=True)
class ServerFacts:
    """What a server said about itself; empty strings where its ACL forbids the question.

    `time_ms` is the server's clock in milliseconds since 1970, read between `sent` and `received`, which are
    `time.monotonic()` of this process in seconds.
    """

    run_id: str
    version: str
    waitaof: bool
    time_ms: int
    sent: float
    received: float
    uptime: float  # seconds


async def suitable(line: Line) -> ServerFacts:
    """What the server is, if jobs are safe on it.

    Raises `UnsuitableServer` if it lacks a command or may evict keys. A question that the ACL forbids
    is not held against it.
    """
    commands = await _commands(line)
    facts = await info_section(line, "server")
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    if commands is not None and (missing := [name.upper() for name in NEEDED if name not in commands]):
        raise UnsuitableServer(
            f"the server at {line.where} (version {version or 'unknown'}) lacks {', '.join(missing)}. "
            "streamq needs Redis 7.0 or newer, or Valkey 7.2 or newer: upgrade it, or use embedded://",
            what=f"the server lacks {', '.join(missing)}",
            where=f"{line.where}, version {version or 'unknown'}",
            cause="streamq needs Redis 7.0 or newer, or Valkey 7.2 or newer",
            fix="redis-server --version    and upgrade it; streamq demo brings its own server",
        )
    memory = await info_section(line, "memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory", "0") != "0":
        raise UnsuitableServer(
            f"the server at {line.where} has maxmemory-policy {policy}: it would drop jobs when "
            "its memory is full. Type: redis-cli CONFIG SET maxmemory-policy noeviction",
            what=f"the server would drop jobs when its memory is full: maxmemory-policy is {policy}",
            where=line.where,
            cause="it is set up as a cache",
            fix="redis-cli CONFIG SET maxmemory-policy noeviction    and the same in its configuration file",
        )
    up = float(facts.get("uptime_in_seconds", "inf"))  # not told: believe that it was up
    sent = time.monotonic()
    seconds, micros = _pair(await line.call("TIME"))
    received = time.monotonic()
    now = seconds * 1000 + micros // 1000
    return ServerFacts(facts.get("run_id", ""), version, "waitaof" in (commands or ()), now, sent, received, up)


async def _commands(line: Line) -> set[str] | None:
    try:
        reply = await line.call("COMMAND", "INFO", *NEEDED, "waitaof")
    except ResponseError:  # forbidden, or renamed away
        return None
    found = reply if isinstance(reply, list) else []
    names = [entry[0] for entry in found if isinstance(entry, list) and entry]
    return {name.decode().lower() if isinstance(name, bytes) else str(name) for name in names}


async def info_section(line: Line, section: str) -> dict[str, str]:
    """One section of INFO; empty if this user may not ask."""
    try:
        reply = await line.call("INFO", section)
    except ResponseError:  # forbidden, or renamed away
        return {}
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    pairs = (row.split(":", 1) for row in text.splitlines() if ":" in row)
    return {name: value.strip() for name, value in pairs}


def _pair(reply: Reply) -> tuple[int, int]:
    match reply:
        case [bytes() as first, bytes() as second]:
            return int(first), int(second)
        case _:
            raise BrokerError(f"TIME was answered with {reply!r}, not with two numbers: is this a Redis server?")
