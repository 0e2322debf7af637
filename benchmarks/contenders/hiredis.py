"""The limit of Python: the same as `raw`, over hiredis and an asyncio Protocol of our own instead of redis-py."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop
from hiredis import Reader, ReplyError, pack_command

from benchmarks.marks import mark

REQUIRES: list[str] = []  # the interpreter that runs the harness: hiredis and uvloop are streamq's
SETTINGS = "no client library, tasks, results or leases: what a queue in Python cannot be faster than"
RESULTS = False
JOBS = 100_000

BATCH = 100
CHUNK = 500  # XADDs a write


class Line(asyncio.Protocol):
    """One connection. What is called in one turn of the loop leaves in one write."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.unsent: list[bytes] = []
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            waiting = self.waiting.popleft()
            if isinstance(reply, ReplyError):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in self.waiting:
            waiting.set_exception(error or ConnectionError("the server closed the connection"))

    def call(self, *command: bytes | int) -> asyncio.Future[Any]:
        if not self.unsent:
            self.loop.call_soon(self._flush)
        self.unsent.append(pack_command(command))  # type: ignore[arg-type]  # typed as a tuple of one
        answer = self.loop.create_future()
        self.waiting.append(answer)
        return answer

    def _flush(self) -> None:
        self.transport.write(b"".join(self.unsent))
        self.unsent.clear()


async def connect(url: str) -> Line:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(Line, cast(str, address.hostname), cast(int, address.port))
    try:
        await line.call(b"XGROUP", b"CREATE", b"bench", b"w", b"0", b"MKSTREAM")
    except ReplyError as error:
        if "BUSYGROUP" not in str(error):
            raise
    return line


def worker(concurrency: int) -> list[str]:
    return ["-m", "benchmarks.contenders.hiredis"]


async def work(url: str) -> None:
    line = await connect(url)
    read = b"XREADGROUP", b"GROUP", b"w", b"c", b"COUNT", BATCH, b"BLOCK", 0, b"STREAMS", b"bench", b">"
    while True:
        found = await line.call(*read)
        entries: list[bytes] = []
        for entry, fields in found[0][1]:
            mark(int(fields[1]))
            entries.append(entry)
        acknowledged = line.call(b"XACK", b"bench", b"w", *entries)
        await line.call(b"XDEL", b"bench", *entries)
        await acknowledged


class Producer:
    enqueue_naps = enqueue_in = result = None

    def __init__(self, line: Line) -> None:
        self.line = line

    async def enqueue(self, i: int, y: int) -> None:
        await self._add(i, y)

    def _add(self, i: int, y: int) -> asyncio.Future[Any]:
        return self.line.call(b"XADD", b"bench", b"*", b"i", i, b"y", y)

    async def enqueue_many(self, count: int) -> None:
        for start in range(0, count, CHUNK):
            added = [self._add(i, 1) for i in range(start, min(start + CHUNK, count))]
            await added[-1]

    async def left(self) -> int:
        return int(await self.line.call(b"XLEN", b"bench"))

    async def close(self) -> None:
        self.line.transport.close()


async def open_producer(url: str) -> Producer:
    return Producer(await connect(url))


if __name__ == "__main__":
    uvloop.run(work(os.environ["BENCH_URL"]))
