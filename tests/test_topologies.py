"""The servers that other tests stand on: they form, fail over, move slots, speak TLS, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis import exceptions as refused
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.conftest import PROGRAMS
from tests.topologies import (
    Access,
    Certificates,
    ClusterSet,
    Migration,
    Node,
    SentinelSet,
    certificates,
    speaks_tls,
    until,
)

pytestmark = pytest.mark.sets

QUEUE = "{mail}:s"
ONCE = Retry(NoBackoff(), 0)
SLOT = key_slot(QUEUE.encode())
ORPHAN = """
import signal, time
from tests.topologies import Node
node = Node()
node.start()
node.signal(signal.SIGSTOP)
print(node.pid, node.folder, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# One server


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_node_comes_back_on_its_port_with_its_data(kind: str) -> None:
    with Node(kind, {"appendonly": "yes", "appendfsync": "always"}) as node:
        assert node.call("CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
        node.call("SET", "k", "v")
        node.signal(signal.SIGSTOP)
        assert not node.running
        with pytest.raises(refused.TimeoutError), node.client(socket_timeout=0.05) as client:
            client.ping()
        node.signal(signal.SIGCONT)
        assert node.running
        node.kill()
        with pytest.raises(refused.ConnectionError), node.client() as client:
            client.ping()
        node.start()
        assert node.call("GET", "k") == "v"
        with redis.Redis.from_url(node.url) as client:
            assert client.get("k") == b"v"
    assert not alive(node.pid)
    assert not node.folder.exists()


def test_a_stopped_server_does_not_outlive_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    pid, folder = int(words[0]), words[1]
    assert alive(pid)
    parent.kill()
    parent.communicate()
    try:
        until(lambda: not alive(pid), 5, "gone")
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


@pytest.mark.parametrize("topology", [SentinelSet, ClusterSet])
def test_a_start_that_fails_leaves_nothing(topology: type[SentinelSet | ClusterSet]) -> None:
    failing = topology(next(iter(PROGRAMS)))
    with (failing.servers[-1].folder / "conf").open("a") as conf:
        conf.write("nonsense 1\n")
    with pytest.raises(RuntimeError, match="nonsense"):
        failing.start()
    assert not failing.folder.exists()
    assert not any(alive(server.pid) for server in failing.servers)


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    cancelled = SentinelSet(next(iter(PROGRAMS)))

    async def use() -> None:
        async with cancelled:
            raise AssertionError("it was ready too early to be cancelled")

    starting = asyncio.create_task(use())
    while not cancelled.servers[0].running:
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not cancelled.folder.exists()
    assert not any(alive(server.pid) for server in cancelled.servers)


# Sentinels


async def test_a_replica_becomes_master_when_the_master_is_killed() -> None:
    """With every kind of server at once: all of it is waiting."""
    await asyncio.gather(*map(fails_over, PROGRAMS))


async def fails_over(kind: str) -> None:
    async with SentinelSet(kind) as watched:
        (replica,) = watched.replicas()
        watched.master().call("SET", "k", "v")
        assert watched.master().call("WAIT", 1, 5000) == 1
        killed, new = await asyncio.to_thread(watched.fail_over)
        assert (new, watched.master()) == (replica, replica)
        assert new.call("GET", "k") == "v"
        new.call("SET", "k", "w")
        await asyncio.to_thread(watched.settle)
        assert (killed.call("ROLE")[0], killed.call("GET", "k")) == ("slave", "w")
        with pytest.raises(refused.ReadOnlyError):
            killed.call("SET", "k", "x")


# Clusters


@pytest.fixture(scope="module", params=PROGRAMS)
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSet]:
    with ClusterSet(request.param, replicas=1) as cluster:
        yield cluster


def test_three_masters_answer_for_their_keys(cluster: ClusterSet) -> None:
    owners = {cluster.owner(key): key for key in (f"{{queue{number}}}:jobs" for number in range(30))}
    assert set(owners) == set(cluster.masters())
    assert len(owners) == 3
    for owner, key in owners.items():
        owner.call("SET", key, "v")
        assert owner.call("GET", key) == "v"
        with pytest.raises(refused.MovedError, match=str(owner.port)):
            cluster.other_than(owner).call("GET", key)


def pending(owner: Node) -> list[object]:
    """Who has which entry of the stream, how often delivered, and what is in it."""
    ((entry, consumer, _, deliveries),) = owner.call("XPENDING", QUEUE, "w", "-", "+", 10)
    return [entry, consumer, deliveries, owner.call("XRANGE", QUEUE, entry, entry)]


def one_pending(owner: Node) -> list[object]:
    owner.call("DEL", QUEUE)
    owner.call("XGROUP", "CREATE", QUEUE, "w", "0", "MKSTREAM")
    entry = owner.call("XADD", QUEUE, "*", "job", "1")
    owner.call("XREADGROUP", "GROUP", "w", "first", "STREAMS", QUEUE, ">")
    owner.call("XCLAIM", QUEUE, "w", "second", 0, entry)
    found = pending(owner)
    assert found[:3] == [entry, "second", 2]
    return found


def test_a_pending_entry_moves_with_its_slot(cluster: ClusterSet) -> None:
    source = cluster.owner(SLOT)
    target = cluster.other_than(source)
    before = one_pending(source)
    for number in range(20):
        source.call("SET", f"{{mail}}:{number}", "v")
    cluster.migrate(SLOT, target, pause=0.05)
    assert cluster.owner(QUEUE) is target
    assert pending(target) == before
    assert target.call("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 21
    with pytest.raises(refused.MovedError, match=str(target.port)):
        source.call("XLEN", QUEUE)


def test_half_a_slot_is_answered_for_by_neither(cluster: ClusterSet) -> None:
    """What a client meets in between: ASK for what has moved, TRYAGAIN for what is torn apart."""
    source = cluster.owner(SLOT)
    target = cluster.other_than(source)
    for name in "ab":
        source.call("SET", f"{{mail}}:{name}", "v")
    moving = Migration(cluster, SLOT, target)
    moving.begin()
    moving.move("{mail}:a")
    with pytest.raises(refused.AskError, match=str(target.port)):
        source.call("GET", "{mail}:a")
    with pytest.raises(refused.TryAgainError):
        source.call("EVAL", "return 1", 2, "{mail}:a", "{mail}:b")
    with target.client(single_connection_client=True) as asking:
        asking.execute_command("ASKING")
        assert asking.get("{mail}:a") == b"v"
    moving.finish()
    assert target.call("EVAL", "return redis.call('EXISTS', KEYS[1], KEYS[2])", 2, "{mail}:a", "{mail}:b") == 2


def test_a_slot_moves_at_one_moment(cluster: ClusterSet) -> None:
    if not cluster.moves_atomically:
        pytest.skip(f"{cluster.kind} has no CLUSTER MIGRATESLOTS")
    source = cluster.owner(SLOT)
    target = cluster.other_than(source)
    before = one_pending(source)
    cluster.migrate_atomically(SLOT, target)
    assert cluster.agreed(SLOT) is target
    assert pending(target) == before


def test_a_replica_takes_over_from_a_killed_master(cluster: ClusterSet) -> None:
    master = cluster.owner(SLOT)
    replica = cluster.replica_of(master)
    before = one_pending(master)
    assert master.call("WAIT", 1, 5000) == 1
    assert cluster.fail_over(master) is replica
    assert pending(replica) == before
    cluster.settle()
    assert cluster.replica_of(replica) is master
    assert len(cluster.masters()) == 3


# TLS


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_kind() -> str:
    found = [kind for kind in PROGRAMS if speaks_tls(kind)]
    return found[0] if found else pytest.skip("no server here was built with TLS")


def refuses_plain(server: Node) -> None:
    with redis.Redis(port=server.port, retry=ONCE) as plain, pytest.raises(refused.ConnectionError):
        plain.ping()


def test_a_tls_node_answers_whoever_verifies_it(tls_kind: str, certs: Certificates) -> None:
    with Node(tls_kind, access=Access(password="s3cret@/", tls=certs)) as node:
        refuses_plain(node)
        with redis.Redis.from_url(node.url) as client:
            assert client.ping()
        with node.client(ssl_include_verify_flags=[ssl.VerifyFlags.VERIFY_X509_STRICT]) as strict:
            assert strict.ping()
        with node.client(ssl_ca_certs=None) as doubtful, pytest.raises(refused.ConnectionError, match="certificate"):
            doubtful.ping()
        for password in ("wrong", None):
            with node.client(password=password) as stranger, pytest.raises(refused.AuthenticationError):
                stranger.ping()


async def test_sentinels_and_clusters_form_over_tls_with_passwords(tls_kind: str, certs: Certificates) -> None:
    access = Access(password="d@ta", sentinel_password="w@tch", tls=certs)
    watched, cluster = SentinelSet(tls_kind, access=access), ClusterSet(tls_kind, replicas=1, access=access)
    async with watched, cluster:
        assert watched.url.startswith("rediss+sentinel://:d%40ta@127.0.0.1:")
        assert cluster.url.startswith("rediss+cluster://:d%40ta@127.0.0.1:")
        assert watched.url.endswith(f"/mymaster/0?sentinel_password=w%40tch&ssl_ca_certs={certs.ca}")
        for server in (*watched.servers, *cluster.servers):
            refuses_plain(server)
        tls = {"ssl": True, "ssl_ca_certs": str(certs.ca)}
        asked = Sentinel(
            [("localhost", each.port) for each in watched.sentinels], sentinel_kwargs={"password": "w@tch", **tls}
        )
        assert asked.discover_master("mymaster")[1] == watched.master().port
        for client in asked.sentinels:
            client.close()
        source = cluster.owner(SLOT)
        before = one_pending(source)
        cluster.migrate(SLOT, target := cluster.other_than(source))
        assert pending(target) == before
