"""One connection and its deadlines."""

from __future__ import annotations

import asyncio
import copy
import math
import os
from collections.abc import Awaitable, Callable
from typing import cast

from redis import exceptions as refused
from redis.asyncio.connection import AbstractConnection

from streamq.broker.diagnosis import is_transient
from streamq.broker.exchange import Answer, Exchange, Reply
from streamq.broker.retrying import backoff
from streamq.errors import BrokerError

CONNECT_TIMEOUT = 5.0  # seconds
CONNECT_AGAIN = 1.0  # seconds, the most between two tries of one that is patient


class Line:
    """One connection to Redis. Commands of several callers are under way at once, and answered in order.

    It connects when it is first used. A reply that is an error is raised as `redis.exceptions.ResponseError`
    and leaves the connection as it is; so does a caller that is cancelled: its reply is dropped when it comes.
    A late reply, or anything else that goes wrong, closes the connection at once and fails all that is under
    way. Nothing is ever sent twice.

    One that is `patient` tries again and again to reconnect, for as long as one connection may take: its server will
    come back, or the line is retired because another server took its place.

        line = connections.line()
        await line.call("XLEN", "jobs")
    """

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        where: str,
        on_stray: Callable[[refused.ResponseError], None] | None = None,
        before_reconnect: Callable[[], Awaitable[None]] | None = None,
        patient: bool = False,
    ) -> None:
        from hiredis import pack_command  # pyright: ignore[reportUnknownVariableType]

        self.where = where  # redacted
        self.connected = 0  # grows with each new connection
        self._make = make
        self._on_stray = on_stray
        self._before_reconnect = before_reconnect
        self._pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", pack_command)
        self._patient = patient
        self._connecting = asyncio.Lock()
        self._limit: asyncio.Timeout | None = None  # of the connection that is being made
        self._failures: tuple[int, Exception | None] = (0, None)  # how many tries to connect, and the last one's
        self._pid = os.getpid()
        self.closed = self._retired = False
        self._exchange: Exchange | None = None
        self._deadlines: dict[Answer, float] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Line {self.where} connected={self.connected}>"

    async def call(self, *args: bytes | str | int, timeout: float | None = 5.0) -> Reply:
        """Send one command and return its reply, undecoded. `timeout` in seconds; None waits for ever.

        The time runs from when the command is sent; a new connection has 5 seconds of its own.
        Raises `redis.exceptions.ResponseError` (the server refused), `redis.exceptions.ConnectionError` and
        `redis.exceptions.TimeoutError` (it is unknown whether the command was carried out), and `BrokerError`
        on a closed line or in a forked child.
        """
        if self.closed or self._pid != os.getpid():
            self._refuse()
        command = self._pack(args)
        exchange = self._exchange
        if exchange is None or exchange.lost.done():
            exchange = await self._connect()
        answer = exchange.send(command)
        if timeout is not None:
            self._watch(answer, timeout)
        try:
            return await answer
        except refused.ConnectionError:
            if self._deadlines.get(answer) == -math.inf:
                name = command.split(b"\r\n", 3)[2].decode(errors="replace")
                raise refused.TimeoutError(f"{name}: no reply within {timeout} seconds") from None
            raise
        except (refused.MovedError, refused.ReadOnlyError) as error:
            self._stray(error)
            raise
        finally:
            if timeout is not None:
                del self._deadlines[answer]

    def hang_up(self) -> None:
        """Close the connection; the next call makes a new one. For who gives up a blocking command."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()

    async def close(self) -> None:
        """Close the connection. A command that is under way fails. Calling it again does nothing."""
        self.closed = True
        exchange, self._exchange = self._exchange, None
        if self._alarm is not None:
            self._alarm.cancel()
        if self._limit is not None:
            self._limit.reschedule(0)
        if exchange is None or self._pid != os.getpid():  # the parent goes on using the socket
            return
        exchange.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the next pass of the loop

    async def retire(self) -> None:
        """Close it because its server has no keys any more. Whoever calls it fails as if the connection had broken."""
        self._retired = True
        await self.close()

    def _stray(self, error: refused.MovedError | refused.ReadOnlyError) -> None:
        if isinstance(error, refused.ReadOnlyError):  # a replica now; the next connection may lead to the new master
            self.hang_up()
        if self._on_stray is not None:
            self._on_stray(error)

    def _refuse(self) -> None:
        if self._retired:
            raise refused.ConnectionError(f"{self.where} is no master any more")
        if self._pid != os.getpid():
            raise BrokerError(
                f"this connection to {self.where} belongs to process {self._pid}, not to its forked child "
                f"{os.getpid()}: two processes on one socket read each other's replies. "
                "Open the application after the fork"
            )
        raise BrokerError(f"this connection to {self.where} was closed: open the application again")

    async def _connect(self) -> Exchange:
        known, _ = self._failures
        async with self._connecting:
            if self._exchange is not None and not self._exchange.lost.done():
                return self._exchange  # another caller was first
            if self.closed:
                self._refuse()
            count, failure = self._failures
            if count != known and failure is not None:  # another caller tried meanwhile, for both
                raise copy.copy(failure) from failure
            self._exchange = None
            if self._before_reconnect is not None and self.connected:
                await self._before_reconnect()
            try:
                self._exchange = Exchange(await self._wire())
            except Exception as error:
                self._failures = count + 1, error
                raise
            self.connected += 1
            return self._exchange

    async def _wire(self) -> AbstractConnection:
        """A connection that is made and logged in."""
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT) as self._limit:
                for pause in backoff():
                    wire = self._make()
                    try:
                        await wire.connect()  # type: ignore[no-untyped-call]
                        if await wire.can_read():  # the streams hold an end, or bytes, that Exchange would never see
                            raise refused.ConnectionError("the server closed the connection after the handshake")
                        if self.closed:  # while it was connecting
                            self._refuse()
                        return wire
                    except BaseException as error:
                        _forget(wire)
                        if not (self._patient and self.connected and not self.closed and is_transient(error)):
                            raise
                        failure = error
                    await asyncio.sleep(min(pause, CONNECT_AGAIN))
                raise AssertionError("the backoff has no end")
        except TimeoutError:
            if self.closed:
                self._refuse()
            raise failure or refused.TimeoutError(f"no connection within {CONNECT_TIMEOUT} seconds") from None
        finally:
            self._limit = None

    # One timer watches many calls: it is armed again when it goes off, not at each call. asyncio.timeout() or
    # the timeouts of redis-py would add 10 to 25 microseconds to a call of 40.

    def _watch(self, answer: Answer, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadlines[answer] = deadline = loop.time() + timeout
        if self._alarm is None or self._alarm.when() > deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        late = [answer for answer, deadline in self._deadlines.items() if deadline <= loop.time()]
        for answer in late:
            self._deadlines[answer] = -math.inf
        if late:
            self.hang_up()
        elif self._deadlines:
            self._alarm = loop.call_at(min(self._deadlines.values()), self._ring)


def _forget(wire: AbstractConnection) -> None:
    # close() would wait until a stopped server has taken what is still unsent. There is no public way.
    writer = wire._writer  # pyright: ignore[reportPrivateUsage]
    if writer is not None:
        writer.transport.abort()
    wire._close()  # type: ignore[no-untyped-call]  # pyright: ignore[reportPrivateUsage]
