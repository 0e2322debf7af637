"""Commands out and replies in, in order, over a transport that redis-py has connected and logged in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from redis import exceptions as refused
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection

Reply: TypeAlias = "bytes | int | str | list[Reply] | None"
Answer: TypeAlias = "asyncio.Future[Reply]"

_NOT_YET: Final = object()
_REFUSAL = cast("Callable[[str], Exception]", BaseParser.parse_error)  # pyright: ignore[reportUnknownMemberType]


class Exchange(asyncio.Protocol):
    """The bytes of one connection. Commands are pipelined: the next is sent before the last was answered.

    redis-py makes the connection (address, TLS, password, database); then its streams are left out. They cost
    5 microseconds of CPU of 45 a command, and let only one be under way.
    """

    def __init__(self, wire: AbstractConnection) -> None:
        from hiredis import Reader

        writer = wire._writer  # pyright: ignore[reportPrivateUsage] - there is no public way to the transport
        assert writer is not None
        self._wire = wire  # kept: its streams close the transport when they are collected
        self._transport: Any = writer.transport
        self._reader = Reader(protocolError=refused.InvalidResponse, replyError=_REFUSAL, notEnoughData=_NOT_YET)
        self._open: deque[Answer] = deque()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self.connection_lost(None)  # the streams heard of it, we would not

    def send(self, command: bytes) -> Answer:
        """What the server will answer. A caller that is cancelled leaves its place; the reply is read and dropped.

        The answer can be `redis.exceptions.ResponseError`, or `ConnectionError` when the connection ends first.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._open.append(answer)
        if self.lost.done():
            self.connection_lost(None)
        else:
            self._transport.write(command)
        return answer

    def abort(self) -> None:
        """Close at once. What is still unanswered fails."""
        self._transport.abort()
        self.connection_lost(None)

    # ---- called by the loop --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out what is complete."""
        reader, waiting = self._reader, self._open
        reply: Any
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOT_YET:
                answer = waiting.popleft()
                if answer.done():
                    continue
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
        except (refused.InvalidResponse, IndexError):  # not Redis, or bytes that nobody asked for
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for ever."""
        if not self.lost.done():
            self.lost.set_result(None)
            self._wire._close()  # type: ignore[no-untyped-call]  # pyright: ignore[reportPrivateUsage]
        waiting, self._open = self._open, deque()
        for answer in waiting:
            if not answer.done():
                text = f"the connection was closed while a command was under way: {exc or 'end of stream'}"
                answer.set_exception(refused.ConnectionError(text))
