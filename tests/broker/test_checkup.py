"""The doctor's checks: each as a function of facts, and the facts as real servers tell them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq.broker.address import Address
from streamq.broker.broker import Broker
from streamq.broker.checkup import Severity, examine
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.facts import Facts, gather, libraries
from streamq.broker.inspector import QueueInfo, WorkerInfo
from streamq.core.options import AppOptions
from streamq.errors import BrokerError
from tests.broker.byhand import QUEUE, job
from tests.conftest import PROGRAMS

SOUND = Facts(
    address=Address.parse("redis://user:secret@localhost:6379/0"),
    options=AppOptions(),
    server={"redis_version": "7.2.4"},
    memory={"used_memory": "1000000", "maxmemory": "100000000", "maxmemory_policy": "noeviction"},
    persistence={"aof_enabled": "1"},
    replication={"role": "master", "connected_slaves": "1"},
    fsync="everysec",
    waitaof=True,
    user="user",
    skew=0.001,
    pings=[0.1] * 20,
    queues=[QueueInfo("default", 5, 1, 0, 0, 2.0, 1, {0: 5})],
    workers=[],
    orphans={},
    libraries=libraries(),
)
OTHER = Address.parse("redis://redis.example.com:6379/0")


def queue(**changes: Any) -> list[QueueInfo]:
    return [dataclasses.replace(SOUND.queues[0], **changes)]


def worker(name: str, **changes: Any) -> WorkerInfo:
    return WorkerInfo(name, "host", 1, "0.1.0", ["default"], 100, [], 0, **changes)


def changed(**parts: Any) -> Facts:
    return dataclasses.replace(SOUND, **parts)


AOF = {"aof_enabled": "1"}
FULL = {"used_memory": "100", "maxmemory": "100", "maxmemory_policy": "noeviction"}
CASES: list[tuple[str, Severity, Facts, str]] = [
    ("server", Severity.UNSUITABLE, changed(replication={"role": "slave", "master_host": "a"}), "is a replica"),
    ("memory", Severity.WARNING, changed(memory=FULL), "new jobs are refused (QueueFull)"),
    ("memory", Severity.WARNING, changed(memory={**FULL, "used_memory": "90"}), "90 B of 100 B used"),
    ("memory", Severity.WARNING, changed(memory={"maxmemory_policy": "allkeys-lru"}), "jobs would be dropped"),
    ("memory", Severity.NOTE, changed(memory={}), "may not ask for INFO"),
    ("persistence", Severity.WARNING, changed(persistence={"aof_enabled": "0"}), "no AOF"),
    ("persistence", Severity.WARNING, changed(fsync="no"), "had not written"),
    (
        "persistence",
        Severity.WARNING,
        changed(persistence={**AOF, "aof_last_write_status": "err"}),
        "the AOF could not be written",
    ),
    ("durability", Severity.UNSUITABLE, changed(options=AppOptions(durability="replicas:2")), "has 1 replica:"),
    (
        "durability",
        Severity.UNSUITABLE,
        changed(options=AppOptions(durability="fsync"), waitaof=False),
        "WAITAOF needs Redis 7.2",
    ),
    (
        "durability",
        Severity.UNSUITABLE,
        changed(options=AppOptions(durability="fsync"), persistence={"aof_enabled": "0"}),
        "appendonly is no",
    ),
    ("access", Severity.WARNING, changed(address=OTHER), "no password: whoever reaches redis.example.com"),
    ("access", Severity.NOTE, changed(address=OTHER), "no TLS"),
    ("clock", Severity.WARNING, changed(skew=-4.0), "4.0 s behind this machine's"),
    ("network", Severity.NOTE, changed(pings=[8.0] * 20), "8.00 ms"),
    ("queues", Severity.WARNING, changed(queues=queue(workers=0)), "6 jobs, and no live worker"),
    ("queues", Severity.NOTE, changed(queues=queue(oldest=900.0)), "since 900 s"),
    ("queues", Severity.NOTE, changed(queues=queue(dead=3)), "3 dead letters"),
    ("queues", Severity.NOTE, changed(queues=[]), "no queue was ever used"),
    ("orphans", Severity.NOTE, changed(orphans={"w9": 7}), "7 jobs held by 1 dead worker (w9)"),
    (
        "versions",
        Severity.NOTE,
        changed(workers=[worker("a", libraries="streamq 0.1.0"), worker("b", libraries="streamq 0.2.0")]),
        "1 with streamq 0.1.0; 1 with streamq 0.2.0",
    ),
]


def test_a_sound_set_up_has_no_complaint() -> None:
    assert {finding.severity for finding in examine([SOUND])} == {Severity.OK}


@pytest.mark.parametrize(("check", "severity", "facts", "says"), CASES, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said(check: str, severity: Severity, facts: Facts, says: str) -> None:
    wrong = [finding for finding in examine([facts]) if finding.severity is not Severity.OK]
    assert [finding.check for finding in wrong if says in finding.says and finding.severity is severity] == [check]


def test_no_finding_shows_the_password() -> None:
    assert all("secret" not in f"{each.says} {each.do}" for each in examine([SOUND]))


# ---- real servers -------------------------------------------------------------------------------------------


@pytest.fixture(params=PROGRAMS)
def own(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server whose configuration may be changed."""
    program: Path = PROGRAMS[request.param]
    with EmbeddedServer.start(binary=program) as server:
        yield server.url


@pytest.fixture
async def broker(own: str) -> AsyncIterator[Broker]:
    broker = Broker(own, AppOptions(namespace="checkup", timeout=5.0))
    await broker.open()
    yield broker
    await broker.close()


async def severities(broker: Broker) -> dict[str, Severity]:
    return {finding.check: finding.severity for finding in reversed(examine(await gather(broker)))}


async def test_a_real_server_answers_all(broker: Broker, own: str) -> None:
    await broker.add(QUEUE, [job("a")])
    (facts,) = await gather(broker)
    assert facts.fsync in ("everysec", "always", "no")
    assert facts.user == "default"
    assert (facts.memory["maxmemory"], facts.replication["role"]) == ("0", "master")
    assert [(each.name, each.queued, each.workers) for each in facts.queues] == [(QUEUE, 1, 0)]
    found = await severities(broker)
    assert found["queues"] is Severity.WARNING
    assert found["server"] is Severity.OK


async def test_what_a_dead_worker_holds_is_counted(broker: Broker) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    await broker.turn(QUEUE, "w1", [], 1, request=1)
    (facts,) = await gather(broker)
    assert facts.orphans == {"w1": 1}
    renewer = broker.renewer()
    renewer.renew(QUEUE, "w1", [], b"", 30_000)
    renewer.close()
    info = worker("w1")
    with redis.Redis.from_url(broker.connections.url_for_children) as client:
        import msgspec

        client.hset(broker.keys(QUEUE).worker_info, "w1", msgspec.msgpack.encode(info))
    assert (await gather(broker))[0].orphans == {}


async def test_a_server_with_aof_is_told_apart(broker: Broker, own: str) -> None:
    with redis.Redis.from_url(own) as client:
        client.config_set("appendonly", "no")
        assert (await severities(broker))["persistence"] is Severity.WARNING
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        assert (await severities(broker))["persistence"] is Severity.OK
        client.config_set("appendonly", "no")  # else its shutdown waits for a rewrite


async def test_a_user_who_may_ask_nothing_is_no_error(broker: Broker, own: str) -> None:
    with redis.Redis.from_url(own) as client:
        client.execute_command(
            "ACL", "SETUSER", "poor", "on", ">pw", "~sq:*", "&sq:*", "+@all", "-info", "-config", "-acl", "-command"
        )
    address = Address.parse(own)
    poor = Broker(f"unix://poor:pw@{address.path}", AppOptions(namespace="checkup", timeout=5.0))
    try:
        await poor.open()
        (facts,) = await gather(poor)
        assert (facts.memory, facts.persistence, facts.fsync, facts.user) == ({}, {}, "", "")
        assert Severity.UNSUITABLE not in {each.severity for each in examine([facts])}
    finally:
        await poor.close()


async def test_a_user_who_may_not_make_groups_is_told_in_a_line(broker: Broker, own: str) -> None:
    with redis.Redis.from_url(own) as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~sq:*", "&sq:*", "+@all", "-xgroup")
    poor = Broker(f"unix://poor:pw@{Address.parse(own).path}", AppOptions(namespace="narrow", timeout=5.0))
    try:
        await poor.open()
        with pytest.raises(BrokerError, match="the user lacks a permission"):
            await poor.prepare(QUEUE)
    finally:
        await poor.close()
