"""One connection, one command at a time, and what its failures mean."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from redis import exceptions as refused
from redis.asyncio.connection import AbstractConnection

from streamq.broker.address import Address
from streamq.errors import BrokerError

Reply: TypeAlias = "bytes | int | str | list[Reply] | None"

CONNECT_TIMEOUT = 5.0  # seconds
TRANSIENT: tuple[type[BaseException], ...] = (
    refused.ConnectionError,  # BusyLoadingError is one
    refused.TimeoutError,
    refused.ReadOnlyError,
    refused.MasterDownError,
    refused.TryAgainError,
    refused.ClusterDownError,
    OSError,  # TimeoutError of asyncio is one
)
_TRANSIENT_CODES = {"LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED", "BUSY"}
_PERMANENT = (refused.AuthenticationError, refused.AuthorizationError)


class Line:
    """One connection to Redis, for one command at a time; others wait their turn.

    It connects when it is first used. A reply that is an error is raised as `redis.exceptions.ResponseError`
    and leaves the connection as it is. Anything else that goes wrong while a command is under way,
    cancellation included, closes the connection at once: the reply of a command that was given up can never
    be read as the reply of the next one. Nothing is ever sent twice.

        line = connections.line()
        await line.call("XLEN", "jobs")
    """

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        where: str,
        before_reconnect: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        from hiredis import pack_command  # pyright: ignore[reportUnknownVariableType]

        self.where = where  # redacted
        self.connected = 0  # grows with each new connection
        self._make = make
        self._before_reconnect = before_reconnect
        self._pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", pack_command)
        self._lock = asyncio.Lock()
        self._pid = os.getpid()
        self.closed = False
        self._wire: AbstractConnection | None = None
        self._deadline = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._late = False

    def __repr__(self) -> str:
        return f"<Line {self.where} connected={self.connected}>"

    async def call(self, *args: bytes | str | int, timeout: float | None = 5.0) -> Reply:
        """Send one command and return its reply, undecoded. `timeout` in seconds; None waits for ever.

        The time runs from when it is this caller's turn; a new connection has 5 seconds of its own.
        Raises `redis.exceptions.ResponseError` (the server refused), `redis.exceptions.ConnectionError` and
        `redis.exceptions.TimeoutError` (it is unknown whether the command was carried out), and `BrokerError`
        on a closed line or in a forked child.
        """
        self._usable()
        command = self._pack(args)
        async with self._lock:
            wire = self._wire
            # Bytes that nobody asked for, or the end of the stream: the server closed an idle connection.
            if wire is None or not wire.is_connected or await wire.can_read():
                wire = await self._connect()
            if timeout is not None:
                self._watch(timeout)
            try:
                await wire.send_packed_command([command], check_health=False)
                return cast("Reply", await wire.read_response(disable_decoding=True, timeout=math.inf))
            except refused.ResponseError:
                raise
            except BaseException as error:
                self._drop()
                if self._late and isinstance(error, refused.RedisError | OSError):
                    name = command.split(b"\r\n", 3)[2].decode(errors="replace")
                    raise refused.TimeoutError(f"{name}: no reply within {timeout} seconds") from None
                raise
            finally:
                self._deadline = math.inf

    async def close(self) -> None:
        """Close the connection. A command that is under way fails. Calling it again does nothing."""
        self.closed = True
        wire, self._wire = self._wire, None
        self._disarm()
        if wire is None or self._pid != os.getpid():  # the parent goes on using the socket
            return
        _abort(wire)
        await wire.disconnect()

    def _usable(self) -> None:
        if self._pid != os.getpid():
            raise BrokerError(
                f"this connection to {self.where} belongs to process {self._pid}, not to its forked child "
                f"{os.getpid()}: two processes on one socket read each other's replies. "
                "Open the application after the fork"
            )
        if self.closed:
            raise BrokerError(f"this connection to {self.where} was closed: open the application again")

    async def _connect(self) -> AbstractConnection:
        self._drop()
        if self._before_reconnect is not None and self.connected:
            await self._before_reconnect()
        wire = self._make()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await wire.connect()  # type: ignore[no-untyped-call]
            self._usable()  # closed while it was connecting
        except BaseException as error:
            _forget(wire)
            if isinstance(error, TimeoutError):
                raise refused.TimeoutError(f"no connection within {CONNECT_TIMEOUT} seconds") from None
            raise
        self._wire = wire
        self.connected += 1
        return wire

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        self._disarm()
        if wire is not None:
            _forget(wire)

    # One timer watches many calls: it is armed again when it goes off, not at each call. asyncio.timeout() or
    # the timeouts of redis-py would add 10 to 25 microseconds to a call of 30.

    def _watch(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._late = False
        self._deadline = deadline = loop.time() + timeout
        if self._alarm is None or self._alarm.when() > deadline:
            self._disarm()
            self._alarm = loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._deadline == math.inf:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._deadline:
            self._alarm = loop.call_at(self._deadline, self._ring)
        elif self._wire is not None:
            self._late = True
            _abort(self._wire)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def _abort(wire: AbstractConnection) -> None:
    # close() would wait until a stopped server has taken what is still unsent. There is no public way.
    writer = wire._writer  # pyright: ignore[reportPrivateUsage]
    if writer is not None:
        writer.transport.abort()


def _forget(wire: AbstractConnection) -> None:
    _abort(wire)
    wire._close()  # type: ignore[no-untyped-call]  # pyright: ignore[reportPrivateUsage]


def is_transient(exc: BaseException) -> bool:
    """Whether the same command may succeed a little later. A wrong password or certificate will not."""
    if isinstance(exc, _PERMANENT) or _certificate(exc):
        return False
    if isinstance(exc, refused.ResponseError) and str(exc).split(" ", 1)[0] in _TRANSIENT_CODES:
        return True
    return isinstance(exc, TRANSIENT)


def is_full(exc: BaseException) -> bool:
    """Whether the server refused because its memory is full: nothing was written, workers will make room."""
    return isinstance(exc, refused.ResponseError) and (
        isinstance(exc, refused.OutOfMemoryError) or "OOM" in str(exc)[:60]
    )


def _certificate(exc: BaseException) -> bool:
    causes = (exc, exc.__cause__, exc.__context__)
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)


def describe(exc: BaseException, address: Address | str) -> str:
    """One line for a human: what happened, where, the likely cause, what to do.

    >>> describe(ConnectionRefusedError(), "redis://:secret@localhost")
    'cannot reach redis://:***@localhost: the connection was refused. Is Redis running there? ...'
    """
    address = Address.parse(address) if isinstance(address, str) else address
    text = " ".join(str(exc).split()) or type(exc).__name__
    if address.password:
        text = text.replace(address.password, "***")
    what, cause = _diagnosis(exc, text.lower(), address)
    return f"cannot {what} {address}: {cause} [{text}]"


def _diagnosis(exc: BaseException, text: str, address: Address) -> tuple[str, str]:
    if isinstance(exc, _PERMANENT) or "noauth" in text:
        return (
            "log in to",
            "user name or password is missing or wrong. Give them as scheme://user:password@host",
        )
    if isinstance(exc, refused.NoPermissionError):
        return "use", "the user lacks a permission. Check the user's ACL (ACL GETUSER)"
    if _certificate(exc) or "certificate verify failed" in text:
        return "trust", "its TLS certificate does not verify. Add ?ssl_ca_certs=FILE or correct the host name"
    if isinstance(exc, ssl.SSLError) or "ssl" in text or (address.scheme == "rediss" and "closed" in text):
        return (
            "reach",
            "the TLS handshake failed. Does the server speak TLS on this port? If not, write redis://",
        )
    if isinstance(exc, ConnectionRefusedError) or "refused" in text or "error 111" in text:
        return (
            "reach",
            "the connection was refused. Is Redis running there? Start it (redis-server), or use embedded://",
        )
    if isinstance(exc, FileNotFoundError) or "no such file" in text:
        return "reach", "there is no such socket. Is Redis running, and is unixsocket set to this path?"
    if isinstance(exc, PermissionError) or "permission denied" in text:
        return "reach", "no permission. Check the owner and mode of the socket (unixsocketperm)"
    if "name or service" in text or "nodename" in text or "resolution" in text:
        return "find", "the host name does not resolve. Is it spelt right?"
    if isinstance(exc, refused.TimeoutError | TimeoutError) or "timeout" in text:
        tls = " Does it speak TLS on this port?" if address.scheme == "rediss" else ""
        return (
            "reach",
            f"it did not answer in time.{tls} Is it stopped or overloaded, or a firewall in between?",
        )
    if isinstance(exc, refused.BusyLoadingError):
        return "use", "it is still loading its data. Try again in a moment"
    if "max number of clients" in text:
        return "use", "it has no free connection left. Raise maxclients or run fewer processes"
    if isinstance(exc, refused.ConnectionError | OSError):
        return (
            "reach",
            "the connection broke. Is Redis running there? It may have been restarted; does it speak TLS?",
        )
    return "use", "the server refused"
