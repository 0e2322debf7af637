"""`/livez`, `/readyz` and `/metrics`: as much HTTP as probes and Prometheus need, and no more."""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Final, Protocol

from streamq.worker.metrics import CONTENT_TYPE

MAX_REQUEST: Final = 8_192  # bytes of request line and headers
WITHIN: Final = 5.0  # seconds for a whole exchange
MOST: Final = 64  # connections at once

PLAIN: Final = "text/plain; charset=utf-8"
logger = logging.getLogger("streamq.worker")

Answer = tuple[HTTPStatus, str, str]


class Board(Protocol):
    """Who knows how things stand. An objection is a line for people; empty means that all is well."""

    def not_alive(self) -> str:
        """Why this process should be killed."""
        ...

    def not_ready(self) -> str:
        """Why jobs are not taken by all that should."""
        ...

    def metrics(self) -> str:
        """The text of `/metrics`."""
        ...


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on; port 0 takes a free one. Raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family, backlog=MOST)


class Health:
    """Answers GET and HEAD on a socket that listens already.

    async with alive([Health(listen("127.0.0.1", 8080), board)]): ...
    """

    name = "health"

    def __init__(self, listening: socket.socket, board: Board) -> None:
        self._socket = listening
        self._board = board
        self._answering = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        host, port = self._socket.getsockname()[:2]
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=MAX_REQUEST)
        logger.info("health: http://%s:%d/livez /readyz /metrics", f"[{host}]" if ":" in host else host, port)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering += 1
        try:
            if self._answering <= MOST:
                async with asyncio.timeout(WITHIN):
                    await self._answer(reader, writer)
                    writer.close()
                    await writer.wait_closed()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # who asks so gets no answer
        finally:
            self._answering -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
            status, kind, text = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, PLAIN, "too long\n"
        else:
            status, kind, text = self._reply(head)
        body = text.encode()
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET, HEAD"] if status == HTTPStatus.METHOD_NOT_ALLOWED else []),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if head.startswith(b"HEAD ") else body))
        await writer.drain()

    def _reply(self, head: bytes) -> Answer:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return HTTPStatus.BAD_REQUEST, PLAIN, "this is not HTTP/1.1\n"
        if words[0] not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n"
        match words[1].partition(b"?")[0]:
            case b"/livez":
                return _verdict(self._board.not_alive())
            case b"/readyz":
                return _verdict(self._board.not_alive() or self._board.not_ready())
            case b"/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, self._board.metrics()
            case _:
                return HTTPStatus.NOT_FOUND, PLAIN, "/livez /readyz /metrics\n"


def _verdict(objection: str) -> Answer:
    if objection:
        return HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, f"{objection}\n"
    return HTTPStatus.OK, PLAIN, "ok\n"
