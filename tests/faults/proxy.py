"""A proxy between clients and one server that does to their connections what networks do, as often as a seed says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from streamq.broker.address import Address
from streamq.broker.scripts import SCRIPTS


class Kind(Enum):
    DELAY = auto()  # the request is passed on late, and all that follows it on that connection
    LOSE_REQUESTS = auto()  # from this request on nothing reaches the server any more; the connection stays open
    LOSE_REPLIES = auto()  # nor the client, though the server carries everything out
    BLACKHOLE = auto()  # neither
    RESET = auto()  # the connection is reset when the server has sent `after` more bytes
    TRUNCATE = auto()  # half of the reply, then the end
    KILL = auto()  # the request is carried out; instead of the reply the end
    KILL_UNSENT = auto()  # the end instead of the request


@dataclass(frozen=True)
class Fault:
    kind: Kind
    seconds: tuple[float, float] = (0.0, 0.0)
    after: int = 0


KILL = Fault(Kind.KILL)
KILL_UNSENT = Fault(Kind.KILL_UNSENT)
TRUNCATE = Fault(Kind.TRUNCATE)
BLACKHOLE = Fault(Kind.BLACKHOLE)
LOSE_REQUESTS = Fault(Kind.LOSE_REQUESTS)
LOSE_REPLIES = Fault(Kind.LOSE_REPLIES)


def delay(low: float, high: float) -> Fault:
    """Seconds, a different number of them each time."""
    return Fault(Kind.DELAY, (low, high))


def reset(after: int) -> Fault:
    return Fault(Kind.RESET, after=after)


def script(name: str) -> tuple[bytes, ...]:
    """What a request that calls this script contains."""
    return SCRIPTS[name].sha.encode(), f"-- {name}.lua:".encode()


@dataclass(eq=False)
class Rule:
    """One fault for a share of the requests that contain one of the texts (none: of all), so many times at most.

    `about` is a text that they all must contain, too.
    """

    fault: Fault
    on: tuple[bytes, ...] = ()
    share: float = 1.0
    times: float = float("inf")
    wire: Wire | None = None
    about: bytes = b""
    hits: int = field(default=0, init=False)

    def strikes(self, request: bytes, wire: Wire, dice: random.Random) -> bool:
        fits = self.hits < self.times and self.wire in (None, wire) and self.about in request
        if not fits or (self.on and not any(text in request for text in self.on)) or dice.random() >= self.share:
            return False
        self.hits += 1
        return True


def frame_end(data: bytearray, at: int) -> int | None:
    """Where the RESP value that begins at `at` ends; None if it is not complete."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    end, kind = line + 2, data[at : at + 1]
    if kind not in b"$*" or (size := int(data[at + 1 : line])) < 0:
        return end
    if kind == b"$":
        return end + size + 2 if end + size + 2 <= len(data) else None
    for _ in range(size):
        following = frame_end(data, end)
        if following is None:
            return None
        end = following
    return end


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    data = bytearray()
    while chunk := await reader.read(1 << 18):
        data += chunk
        at = 0
        while at < len(data) and (end := frame_end(data, at)) is not None:
            yield bytes(data[at:end])
            at = end
        del data[:at]


class Wire:
    """One connection through the proxy: each reply is known by the request that it answers."""

    def __init__(self, proxy: FaultProxy, client: Streams, server: Streams) -> None:
        self.proxy = proxy
        self.subscribed = False  # messages come unasked
        self.sent: list[bytes] = []  # the first requests, to tell connections apart
        self._client, self._server = client, server
        self._asked: deque[Fault | None] = deque()
        self._deaf = self._mute = False
        self._budget: float = float("inf")

    def cut(self) -> None:
        """Reset both ends, at once."""
        for _, writer in (self._client, self._server):
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def run(self) -> None:
        pumps = [asyncio.ensure_future(pump) for pump in (self._requests(), self._replies())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.cut()

    async def _requests(self) -> None:
        writer = self._server[1]
        async for request in frames(self._client[0]):
            if len(self.sent) < 5:
                self.sent.append(request)
            self.subscribed = self.subscribed or b"SUBSCRIBE" in request
            fault = self.proxy.choose(request, self)
            match fault:
                case Fault(Kind.KILL_UNSENT):
                    return
                case Fault(Kind.DELAY, seconds):
                    await asyncio.sleep(self.proxy.dice.uniform(*seconds))
                case Fault(Kind.RESET, after=after):
                    self._budget = after
                case Fault(kind):
                    self._deaf = self._deaf or kind in (Kind.LOSE_REQUESTS, Kind.BLACKHOLE)
                    self._mute = self._mute or kind in (Kind.LOSE_REPLIES, Kind.BLACKHOLE)
            if not self._deaf:
                self._asked.append(fault)
                writer.write(request)
                await writer.drain()

    async def _replies(self) -> None:
        writer = self._client[1]
        async for reply in frames(self._server[0]):
            fault = None if self.subscribed or not self._asked else self._asked.popleft()
            if fault == KILL:
                return
            if fault == TRUNCATE:
                reply = reply[: len(reply) // 2]
            if len(reply) > self._budget:
                reply, fault = reply[: int(self._budget)], TRUNCATE
            self._budget -= len(reply)
            if not self._mute:
                writer.write(reply)
                await writer.drain()
            if fault == TRUNCATE:
                await asyncio.sleep(0)  # the bytes are on their way before the end is
                return


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """Stands before a server; as long as there are no rules it passes everything on.

    async with FaultProxy(server.url, dice) as proxy:
        rule = proxy.inflict(KILL, on=script("push"), share=0.05)
        app = StreamQ(proxy.url)
    """

    def __init__(self, target: str, dice: random.Random, *, socket_path: Path | None = None) -> None:
        self.target = Address.parse(target)
        self.dice = random.Random(dice.random())
        self.wires: set[Wire] = set()
        self.url = ""
        self._path = socket_path
        self._rules: list[Rule] = []
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def inflict(
        self,
        fault: Fault,
        *,
        on: tuple[bytes, ...] = (),
        about: bytes = b"",
        share: float = 1.0,
        times: float = float("inf"),
        wire: Wire | None = None,
    ) -> Rule:
        """From now on; the rule counts its hits. Of several rules that strike, the first one counts."""
        self._rules.append(Rule(fault, on, share, times, wire, about))
        return self._rules[-1]

    def heal(self) -> None:
        """No more faults. What is half-open stays so, as it does in a network."""
        self._rules.clear()

    def cut_all(self) -> None:
        """Reset every connection."""
        for wire in list(self.wires):
            wire.cut()

    def choose(self, request: bytes, wire: Wire) -> Fault | None:
        return next((rule.fault for rule in self._rules if rule.strikes(request, wire, self.dice)), None)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        finally:
            self._running.discard(task)
        wire = Wire(self, (reader, writer), server)
        self.wires.add(wire)
        self._running.add(task)
        try:
            await wire.run()
        except asyncio.CancelledError:  # the proxy is closed; a server's callback must not end so
            wire.cut()
        finally:
            self.wires.discard(wire)
            self._running.discard(task)

    async def _connect(self) -> Streams:
        if self.target.scheme == "unix":
            return await asyncio.open_unix_connection(self.target.path)
        return await asyncio.open_connection(self.target.host, self.target.port)

    async def __aenter__(self) -> FaultProxy:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
            self.url = f"unix://{self._path}"
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
