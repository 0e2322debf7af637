"""TLS connections that are given up while they are made leave nothing open."""

from __future__ import annotations

import asyncio
import gc
import shutil
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streamq.broker.connect import Connections
from tests.conftest import PROGRAMS
from tests.topologies import Access, Node, certificates, speaks_tls

KINDS = [kind for kind in PROGRAMS if speaks_tls(kind)]
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")


@pytest.fixture(scope="module", params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    access = Access(password="s3cret", tls=certificates(tmp_path_factory.mktemp("tls")))
    with Node(request.param, access=access) as node:
        yield node


@pytest.fixture(autouse=True)
def no_other_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They take 30 ms to read, in which nothing else happens."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


async def subscribe(connections: Connections) -> None:
    async with connections.subscribed("a channel") as made:
        task = asyncio.current_task()
        while task is not None and not task.cancelling():  # redis-py may lose the cancellation
            await made.get_message(timeout=0.1)


async def call(connections: Connections) -> None:
    await connections.line().call("BLPOP", "nothing", 0, timeout=5)


@pytest.mark.parametrize("use", [subscribe, call])
def test_whenever_it_is_cancelled(node: Node, use: Callable[[Connections], Awaitable[None]]) -> None:
    """Each time a little later, until the connection is made; each time the event loop ends with it."""

    async def cut_off(after: float) -> None:
        connections = Connections(node.url)
        await connections.open()
        task = asyncio.ensure_future(use(connections))
        await asyncio.sleep(after)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await connections.close()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(30):
            asyncio.run(cut_off(number * 0.0004))
            gc.collect()
    assert [str(each.message) for each in caught] == []
