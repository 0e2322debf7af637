"""Lines to servers that lose their keys: what is under way ends at once, and nobody waits for who does not answer."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import pytest
from redis import exceptions as refused

from streamq.broker import line as lines
from streamq.broker.address import Address
from streamq.broker.line import Line
from streamq.broker.nodes import nodes_of
from streamq.broker.wires import blocking_client, wire
from tests.conftest import PROGRAMS
from tests.topologies import Node, SentinelSet, until

pytestmark = pytest.mark.sets


def line_to(port: int, *, patient: bool = False) -> Line:
    address = Address.parse(f"redis://127.0.0.1:{port}/0")
    return Line(partial(wire, address), str(address), patient=patient)


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """The port of who accepts connections and says nothing: a server that stands still."""
    gone = asyncio.Event()

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        gone.set()
        server.close()
        await server.wait_closed()


async def test_who_is_being_connected_does_not_wait_for_a_server_that_is_no_master_any_more() -> None:
    async with silent() as port:
        line = line_to(port)
        calls = [asyncio.create_task(line.call("PING")) for _ in range(3)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await line.retire()
        for call in calls:
            with pytest.raises(refused.ConnectionError, match="no master any more"):
                await call
        assert time.monotonic() - began < 1


async def test_a_try_that_failed_is_that_of_all_who_waited_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CONNECT_TIMEOUT", 0.3)
    async with silent() as port:
        line = line_to(port)
        began = time.monotonic()
        for failure in await asyncio.gather(*(line.call("PING") for _ in range(10)), return_exceptions=True):
            assert isinstance(failure, refused.TimeoutError)
        assert time.monotonic() - began < 1
        with pytest.raises(refused.TimeoutError):
            await line.call("PING")  # a later caller tries again
        await line.close()


@pytest.mark.parametrize("kind", PROGRAMS)
async def test_a_master_that_comes_back_is_found_by_who_was_patient(kind: str) -> None:
    with Node(kind) as node:
        line, hasty = line_to(node.port, patient=True), line_to(node.port)
        assert await line.call("PING") == await hasty.call("PING") == b"PONG"
        node.kill()
        with pytest.raises((refused.ConnectionError, OSError)):
            await hasty.call("PING")
        waiting = asyncio.create_task(again(line))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(node.start)
        assert await waiting == b"PONG"
        assert line.connected == 2
        for each in (line, hasty):
            await each.close()


async def again(line: Line) -> object:
    """What was under way when the connection broke is not sent again by the line."""
    with suppress(refused.ConnectionError):
        return await line.call("PING")
    return await line.call("PING")


async def test_patience_ends_when_another_is_the_master() -> None:
    with Node() as node:
        line = line_to(node.port, patient=True)
        await line.call("PING")
        node.kill()
        waiting = asyncio.create_task(again(line))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await line.retire()
        with pytest.raises(refused.ConnectionError, match="no master any more"):
            await waiting
        assert time.monotonic() - began < 1


async def test_patience_ends_with_the_time_that_a_connection_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with Node() as node:
        line = line_to(node.port, patient=True)
        await line.call("PING")
        node.kill()
        monkeypatch.setattr(lines, "CONNECT_TIMEOUT", 0.3)
        with pytest.raises(refused.ConnectionError, match="111"):
            await again(line)
        await line.close()


@contextmanager
def unreachable() -> Iterator[int]:
    """The port of who takes no more connections: a machine that is gone answers nothing at all."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(4):  # more than wait in line
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def test_a_blocking_client_waits_for_a_connection_no_longer_than_for_an_answer() -> None:
    with unreachable() as port:
        client = blocking_client(Address.parse(f"redis://127.0.0.1:{port}/0"), 0.2)
        began = time.monotonic()
        with pytest.raises(refused.TimeoutError):
            client.ping()
        assert time.monotonic() - began < 2
        client.close()


def strangers(node: Node) -> list[str]:
    """Who is connected to a Sentinel, but for the other Sentinels and whoever asks."""
    own = f"id={node.call('CLIENT', 'ID')} "
    found = str(node.call("CLIENT", "LIST")).splitlines()
    return [line for line in found if not line.startswith(own) and " name=sentinel" not in line]


def test_a_look_that_is_under_way_when_all_is_closed_leaves_nothing_open() -> None:
    with SentinelSet(next(iter(PROGRAMS)), down_after_ms=5000) as watched:
        nodes = nodes_of(Address.parse(watched.url))
        nodes.look()

        def look() -> None:
            with suppress(refused.ConnectionError):
                nodes.look()

        asked = watched.sentinels[0]
        asked.signal(signal.SIGSTOP)
        looking = threading.Thread(target=look)
        looking.start()
        time.sleep(0.1)  # it waits for an answer
        nodes.close()
        asked.signal(signal.SIGCONT)
        looking.join(10)
        assert not looking.is_alive()
        until(lambda: not any(map(strangers, watched.sentinels)), 2, lambda: [*map(strangers, watched.sentinels)])
        with pytest.raises(refused.ConnectionError, match="closed"):
            nodes.look()
