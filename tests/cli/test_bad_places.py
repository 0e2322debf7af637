"""Bad starts where the servers are a set: one screen each, its exact text, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from textwrap import dedent

import pytest
import redis

from streamq.broker.keys import queues
from streamq.cli.exits import Exit
from streamq.cli.main import main
from tests.conftest import PROGRAMS
from tests.topologies import Access, ClusterSet, Node, SentinelSet, until

pytestmark = pytest.mark.sets

KIND = next(iter(PROGRAMS))
ACCESS = Access(password="right", sentinel_password="watch")
Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """`streamq ...` on this URL: its exit code, and what it said on stderr; on stdout it said nothing."""

    def run(url: str, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["streamq", *(words or ("info",)), "--url", url])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return int(str(ended.value.code)), err

    return run


@pytest.fixture(scope="module")
def alone() -> Iterator[Node]:
    with Node(KIND) as alone:
        yield alone


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    with SentinelSet(KIND, access=ACCESS) as watched:
        yield watched


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSet]:
    with ClusterSet(KIND, access=ACCESS) as cluster:
        yield cluster


def screen(text: str, **values: object) -> str:
    return dedent(text).lstrip().format(**values)


# ---- Sentinels ----------------------------------------------------------------------------------------------------

NO_SENTINEL = """
    streamq: cannot find the master of Redis: no Sentinel answered

      where  redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster/0
      cause  Do they run there, is it their port (26379) and not the master's, and do they speak TLS if the URL says rediss, and only then?
      type   redis-cli -h HOST -p 26379 PING
    """  # noqa: E501
NO_MASTER = """
    streamq: cannot find the master of Redis: the Sentinels know no master of this name

      where  redis+sentinel://:***@{hosts}/other/0?sentinel_password=***
      cause  Is the name after the hosts that of sentinel.conf (sentinel monitor NAME ...)?
      type   redis-cli -h HOST -p 26379 SENTINEL MASTERS    names them
    """
A_SENTINEL = """
    streamq: this is a Sentinel, which keeps no jobs

      where  redis://:***@127.0.0.1:{port}/0
      cause  the URL is for a single server
      type   --url redis+sentinel://HOST:PORT/NAME    NAME is that of the master, as in sentinel.conf
    """
NO_SENTINELS = """
    streamq: a server is no Sentinel

      where  redis+sentinel://127.0.0.1:{port}/mymaster/0
      cause  it is the port of what the Sentinels watch (6379), not theirs (26379), or a single server
      type   --url redis+sentinel://HOST:26379/NAME    or redis://HOST:6379/0 for a single server
    """
SENTINELS_LOGIN = """
    streamq: cannot log in to the Sentinels of Redis: their user name or password is missing or wrong

      where  redis+sentinel://:***@{hosts}/mymaster/0{query}
      cause  They have their own, apart from those of the servers: ?sentinel_username=...&sentinel_password=...
      type   export STREAMQ_URL='redis+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0?sentinel_password=...'    which no process list shows
    """  # noqa: E501
MASTER_LOGIN = """
    streamq: cannot log in to Redis: user name or password is missing or wrong

      where  redis+sentinel://{login}{hosts}/mymaster/0?sentinel_password=***
      cause  Give them as scheme://user:password@host
      type   export STREAMQ_URL=redis+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0    which no process list shows
    """  # noqa: E501


def hosts(watched: SentinelSet) -> str:
    return ",".join(f"127.0.0.1:{each.port}" for each in watched.sentinels)


@pytest.mark.parametrize("words", [("info",), ("enqueue", "shop.add"), ("doctor",)])
def test_no_sentinel_answers(typed: Typed, words: tuple[str, ...]) -> None:
    url = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster/0"
    assert typed(url, *words) == (Exit.UNREACHABLE, screen(NO_SENTINEL))


def test_the_sentinels_know_no_such_master(typed: Typed, watched: SentinelSet) -> None:
    url = watched.url.replace("/mymaster/", "/other/")
    assert typed(url) == (Exit.UNREACHABLE, screen(NO_MASTER, hosts=hosts(watched)))


def test_some_sentinels_are_down_and_the_others_know_no_such_master(typed: Typed, watched: SentinelSet) -> None:
    url = watched.url.replace("/mymaster/", "/other/").replace("@", "@127.0.0.1:1,")
    assert typed(url) == (Exit.UNREACHABLE, screen(NO_MASTER, hosts=f"127.0.0.1:1,{hosts(watched)}"))


def test_one_url_leads_to_a_sentinel(typed: Typed, watched: SentinelSet) -> None:
    port = watched.sentinels[0].port
    assert typed(f"redis://:watch@127.0.0.1:{port}/0") == (Exit.UNSUITABLE, screen(A_SENTINEL, port=port))


def test_the_url_of_sentinels_leads_to_another_server(typed: Typed, alone: Node) -> None:
    url = f"redis+sentinel://127.0.0.1:{alone.port}/mymaster/0"
    assert typed(url) == (Exit.UNSUITABLE, screen(NO_SENTINELS, port=alone.port))


@pytest.mark.parametrize("query", ["?sentinel_password=wrong", ""])
def test_the_password_of_the_sentinels_is_wrong(typed: Typed, watched: SentinelSet, query: str) -> None:
    url = watched.url.partition("?")[0] + query
    shown = screen(SENTINELS_LOGIN, hosts=hosts(watched), query=query.replace("wrong", "***"))
    assert typed(url) == (Exit.UNREACHABLE, shown)


@pytest.mark.parametrize(("login", "shown"), [(":wrong@", ":***@"), ("", "")])
def test_the_password_of_the_master_is_wrong(typed: Typed, watched: SentinelSet, login: str, shown: str) -> None:
    url = watched.url.replace(":right@", login)
    assert typed(url) == (Exit.UNREACHABLE, screen(MASTER_LOGIN, login=shown, hosts=hosts(watched)))


# ---- clusters -----------------------------------------------------------------------------------------------------

NO_NODE = """
    streamq: cannot reach Redis: no server of the cluster answered

      where  redis+cluster://127.0.0.1:1,127.0.0.1:2
      cause  Do they run there, and do they speak TLS if the URL says rediss, and only then? One that answers is enough, for it knows the others
      type   redis-cli -h HOST -p PORT CLUSTER NODES
    """  # noqa: E501
ONE_OF_SEVERAL = """
    streamq: the server is one of a Redis Cluster

      where  redis://:***@127.0.0.1:{port}/0
      cause  this URL is for a single server, and it has a part of the keys only
      type   --url redis+cluster://127.0.0.1:{port}    with user and password as before
    """
NO_CLUSTER = """
    streamq: the server is not part of a Redis Cluster

      where  redis://127.0.0.1:{port}/0
      cause  cluster-enabled is off: it is a single server, or watched by Sentinels
      type   --url redis://127.0.0.1:{port}/0    or redis+sentinel://HOST:26379/NAME
    """
CLUSTER_LOGIN = """
    streamq: cannot log in to Redis: user name or password is missing or wrong

      where  redis+cluster://{login}{hosts}
      cause  Give them as scheme://user:password@host
      type   export STREAMQ_URL=redis+cluster://user:password@host1:6379,host2:6379    which no process list shows
    """
DOWN = """
    streamq: cannot use Redis: the cluster is down

      where  redis+cluster://:***@{hosts}
      cause  A master failed and no replica took over, or slots have no server
      type   redis-cli --cluster check HOST:6379    and what it finds: redis-cli --cluster fix HOST:6379
    """


def seeds(cluster: ClusterSet) -> str:
    return cluster.url.partition("@")[2]


@pytest.mark.parametrize("words", [("info",), ("enqueue", "shop.add"), ("doctor",)])
def test_no_server_of_the_cluster_answers(typed: Typed, words: tuple[str, ...]) -> None:
    assert typed("redis+cluster://127.0.0.1:1,127.0.0.1:2", *words) == (Exit.UNREACHABLE, screen(NO_NODE))


@pytest.mark.parametrize("index", range(3))
def test_one_url_leads_to_one_of_a_cluster(typed: Typed, cluster: ClusterSet, index: int) -> None:
    """Whichever: to the one that happens to have the list of queues, too."""
    port = cluster.nodes[index].port
    assert typed(f"redis://:right@127.0.0.1:{port}/0") == (Exit.UNSUITABLE, screen(ONE_OF_SEVERAL, port=port))


def test_the_url_of_a_cluster_leads_to_a_single_server(typed: Typed, alone: Node) -> None:
    found = typed(f"redis+cluster://127.0.0.1:{alone.port}")
    assert found == (Exit.UNSUITABLE, screen(NO_CLUSTER, port=alone.port))


@pytest.mark.parametrize(("login", "shown"), [(":wrong@", ":***@"), ("", "")])
def test_the_password_of_the_cluster_is_wrong(typed: Typed, cluster: ClusterSet, login: str, shown: str) -> None:
    found = typed(cluster.url.replace(":right@", login))
    assert found == (Exit.UNREACHABLE, screen(CLUSTER_LOGIN, login=shown, hosts=seeds(cluster)))


def test_a_cluster_of_one_is_a_server_like_others(typed: Typed) -> None:
    with ClusterSet(KIND, masters=1) as one, redis.Redis.from_url(one.nodes[0].url) as client:
        before = client.dbsize()
        assert typed(one.nodes[0].url, "queues") == (0, "no queue has been used yet\n")
        assert client.dbsize() == before


@pytest.mark.parametrize("words", [("info",), ("enqueue", "shop.add"), ("doctor",)])
def test_the_cluster_is_down(typed: Typed, cluster: ClusterSet, words: tuple[str, ...]) -> None:
    """The one is gone that has the list of queues, which is the first to be asked."""
    if all(each.running for each in cluster.nodes):
        cluster.owner(queues("streamq")).kill()
    others = [each for each in cluster.nodes if each.running]
    until(lambda: all("cluster_state:fail" in each.call("CLUSTER", "INFO") for each in others), 10, "down")
    assert typed(cluster.url, *words) == (Exit.UNREACHABLE, screen(DOWN, hosts=seeds(cluster)))


# ---- replicas -----------------------------------------------------------------------------------------------------

NO_REPLICAS = """
    streamq: cannot write to Redis: too few replicas follow it, and so it takes no writes

      where  redis://127.0.0.1:{port}/0
      cause  Are its replicas up? min-replicas-to-write is how many it wants
      type   redis-cli INFO replication    shows them
    """
A_REPLICA = """
    streamq: cannot write to Redis: it is a replica

      where  redis://127.0.0.1:{port}/0
      cause  Name the master, or the Sentinels that know who it is. A failover takes a few seconds
      type   redis-cli INFO replication    names the master
    """


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_TIMEOUT", "300ms")
    monkeypatch.setenv("STREAMQ_DURABILITY_TIMEOUT", "100ms")


@pytest.mark.usefixtures("impatient")
def test_the_master_wants_more_replicas_than_there_are(typed: Typed, alone: Node) -> None:
    alone.call("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        found = typed(alone.url, "enqueue", "shop.add")
    finally:
        alone.call("CONFIG", "SET", "min-replicas-to-write", "0")
    assert found == (Exit.UNREACHABLE, screen(NO_REPLICAS, port=alone.port))


@pytest.mark.usefixtures("impatient")
def test_one_url_leads_to_a_replica(typed: Typed, alone: Node) -> None:
    with Node(KIND, {"replicaof": f"127.0.0.1 {alone.port}"}) as replica:
        found = typed(replica.url, "enqueue", "shop.add")
    assert found == (Exit.UNREACHABLE, screen(A_REPLICA, port=replica.port))


@pytest.mark.usefixtures("impatient")
def test_jobs_are_to_be_on_replicas_and_there_are_none(
    typed: Typed, alone: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMQ_DURABILITY", "replicas:1")
    code, said = typed(alone.url, "enqueue", "shop.add")
    assert code == Exit.FAILED
    assert said.startswith("streamq: job ")
    assert "is enqueued, but durability='replicas:1' is not met within 0.1 s: 0 of 1 replicas have it" in said
