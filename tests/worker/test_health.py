"""The few words of HTTP that a worker speaks: bounded in size and time, and closed after each answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from streamq.worker import health
from streamq.worker.alive import alive
from streamq.worker.health import Health, listen


@dataclass
class Board:
    dead: str = ""
    busy: str = ""

    def not_alive(self) -> str:
        return self.dead

    def not_ready(self) -> str:
        return self.busy

    def metrics(self) -> str:
        return "streamq_ready 1\n"


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def port(board: Board) -> AsyncIterator[int]:
    with listen("127.0.0.1", 0) as socket:
        number = socket.getsockname()[1]
        async with alive([Health(socket, board)]):
            yield number


async def ask(port: int, *sent: bytes) -> bytes:
    """Everything that is answered until the connection is closed; nothing for one that is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in sent:
            writer.write(part)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_an_answer_is_whole_and_closes(port: int) -> None:
    answer = await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 3",
        b"Cache-Control: no-store",
        b"Connection: close",
    ]
    assert body == b"ok\n"


async def test_a_request_may_come_in_pieces(port: int) -> None:
    assert b" 200 OK\r\n" in await ask(port, b"GET /readyz?verbose HT", b"TP/1.1\r\nHost:", b" x\r\n\r", b"\n")


async def test_who_is_dead_is_not_ready_either(port: int, board: Board) -> None:
    board.dead = "stands still"
    for path in b"/livez", b"/readyz":
        answer = await ask(port, b"GET " + path + b" HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert answer.endswith(b"\r\n\r\nstands still\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"DELETE /livez HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /livez\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/2\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 2_000, b"431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_answered(port: int, request_: bytes, status: bytes) -> None:
    assert (await ask(port, request_)).startswith(b"HTTP/1.1 " + status)


async def test_who_says_nothing_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WITHIN", 0.2)
    begun = time.monotonic()
    assert await ask(port, b"GET /livez HTTP/1.1\r\n") == b""
    assert 0.15 <= time.monotonic() - begun < 4


async def test_so_many_at_once_and_no_more(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST", 1)
    _, first = await asyncio.open_connection("127.0.0.1", port)
    first.write(b"GET /livez")
    assert await ask(port, b"GET /livez HTTP/1.1\r\n\r\n") == b""
    first.close()
    async with asyncio.timeout(5):
        while not await ask(port, b"GET /livez HTTP/1.1\r\n\r\n"):
            await asyncio.sleep(0.01)
