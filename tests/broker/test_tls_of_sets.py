"""TLS where the servers are a set: each kind of connection verifies its server, and leaves one that it cannot trust."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamq import StreamQ
from streamq.broker.connect import Address, Connections, describe
from streamq.broker.nodes import nodes_of
from streamq.broker.wires import subscription
from streamq.errors import BrokerUnavailable
from tests.conftest import PROGRAMS
from tests.topologies import Access, ClusterSet, SentinelSet, certificates, speaks_tls

KINDS = [kind for kind in PROGRAMS if speaks_tls(kind)]
SETS = {"sentinels": SentinelSet, "cluster": ClusterSet}
Servers = SentinelSet | ClusterSet
pytestmark = [
    pytest.mark.sets,
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates"),
]


@pytest.fixture(scope="module", params=[f"{name}-{kind}" for name in SETS for kind in KINDS])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    name, _, kind = request.param.partition("-")
    access = Access(password="s3cret", sentinel_password="w4tch", tls=certificates(tmp_path_factory.mktemp("tls")))
    with SETS[name](kind, access=access) as servers:
        yield servers


@pytest.fixture(autouse=True)
def no_other_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each TLS connection reads the system's certificates too, for 30 ms. They are none of these servers'."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture
async def connections(servers: Servers) -> AsyncIterator[Connections]:
    connections = Connections(servers.url)
    await connections.open()
    yield connections
    await connections.close()


# ---- each kind of connection ----------------------------------------------------------------------------------------


async def script(connections: Connections, node: Address) -> None:
    assert await connections.line(node).call("EVAL", "return 7", 0) == 7


async def blocking_read(connections: Connections, node: Address) -> None:
    line = connections.line(node)
    assert await line.call("BLMOVE", "{a}1", "{a}2", "LEFT", "LEFT", "0.01") is None


async def heartbeat(connections: Connections, node: Address) -> None:
    client = connections.sync_client(node)
    assert await asyncio.to_thread(client.execute_command, "PING") == b"PONG"


async def subscribing(connections: Connections, node: Address) -> None:
    made = subscription(node)
    try:
        await made.subscribe("a channel")
        message = await made.get_message(timeout=5)
        assert message is not None
        assert message["type"] == "subscribe"
    finally:
        await made.aclose()  # type: ignore[no-untyped-call]


async def look(connections: Connections, node: Address) -> None:
    nodes = nodes_of(replace(connections.address, ca_certs=node.ca_certs))
    try:
        await asyncio.to_thread(nodes.look)
    finally:
        nodes.close()


KINDS_OF_CONNECTION = [script, blocking_read, heartbeat, subscribing, look]
Use = Callable[[Connections, Address], Awaitable[None]]


@pytest.mark.parametrize("use", KINDS_OF_CONNECTION)
async def test_it_verifies_its_server(connections: Connections, use: Use) -> None:
    node = connections.home("{a}1")
    assert (node.scheme, node.verify) == ("rediss", True)
    await use(connections, node)
    doubtful = replace(node, ca_certs=None)
    with pytest.raises(Exception, match="certificate verify failed") as refused:
        await use(connections, doubtful)
    assert "its TLS certificate does not verify" in describe(refused.value, connections.address)


async def test_without_the_authority_it_does_not_open(servers: Servers, namespace: str) -> None:
    url = servers.url.replace(f"ssl_ca_certs={servers.access.tls.ca}", "") if servers.access.tls else ""
    app: StreamQ[Any] = StreamQ(url.rstrip("?&"), namespace=namespace)
    with pytest.raises(BrokerUnavailable, match="its TLS certificate does not verify"):
        await app.open(timeout=0)
    await app.close()


async def test_a_worker_does_all_of_it_over_tls(servers: Servers, namespace: str) -> None:
    """The servers have no other port. The job outlives its lease, and is waited for."""
    app: StreamQ[Any] = StreamQ(servers.url, namespace=namespace, lease="300ms", result_ttl="1m")
    starts: list[int] = []

    @app.task(name="long")
    async def long() -> str:
        starts.append(1)
        await asyncio.sleep(1)
        return "done"

    async with app, app.worker(concurrency=2):
        job = await app.tasks["long"].enqueue()
        assert await job.result(timeout=20) == "done"
    assert starts == [1]
