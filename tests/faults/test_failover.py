"""F14 and F17: a master is killed, stands still, or is asked to go, under load, and a replica takes over."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamq.broker.connect import LOOK_EVERY
from tests.conftest import PROGRAMS
from tests.faults.arena import PATIENCE
from tests.faults.sets import On, SetArena, on, running
from tests.faults.tasks import application
from tests.topologies import ClusterSet, Node, SentinelSet
from tests.worker.waits import until

pytestmark = pytest.mark.sets

__all__ = ["on", "running"]

FORGETS = 1.0  # seconds: what a replica may not have yet
DOWN_AFTER = {SentinelSet: 1.5, ClusterSet: 1.0}  # seconds, the defaults of the harness
FIRST, *_, LAST = [*PROGRAMS, *PROGRAMS]
KILL, STOP = signal.SIGKILL, signal.SIGSTOP


def each_other(kind: str) -> list[Any]:
    return [pytest.param(each, marks=pytest.mark.slow) for each in PROGRAMS if each != kind]


def quickly(*quick: tuple[str, Any]) -> Any:
    """These combinations of server and fault in the default run; the others are slow."""
    return pytest.mark.parametrize(
        ("kind", "how"),
        [
            pytest.param(kind, how, id=f"{kind}-{how.name}", marks=() if (kind, how) in quick else pytest.mark.slow)
            for kind in PROGRAMS
            for how in (KILL, STOP)
        ],
    )


def forget_scripts(servers: SentinelSet | ClusterSet) -> None:
    """Nobody knows a script that no client of now has loaded."""
    servers.broadcast("SCRIPT", "FLUSH")
    servers.broadcast("CONFIG", "RESETSTAT")


def assert_scripts_were_missing(node: Node) -> None:
    assert int(node.call("INFO", "errorstats")["errorstat_NOSCRIPT"]["count"]) > 0


def clients(node: Node) -> list[str]:
    """Ours that ask for more than where the masters are: no other servers, no Sentinels, and not the one that asks."""
    others = re.compile(rf"^id={node.call('CLIENT', 'ID')} | name=sentinel| flags=[MS]| cmd=cluster\|slots")
    return [line for line in str(node.call("CLIENT", "LIST")).splitlines() if not others.search(line)]


async def nobody_stays_on(old: Node) -> None:
    """It is back, and takes itself for the master still: nobody of ours is there, and nothing is written."""
    await asyncio.sleep(2 * LOOK_EVERY)  # so long it may take until everybody knows
    old.signal(signal.SIGCONT)
    await until(lambda: not clients(old), 5)  # it reads that they have gone, and what they had sent before
    before = old.call("INFO", "persistence")["rdb_changes_since_last_save"]
    await asyncio.sleep(0.5)
    assert clients(old) == []
    if old.call("ROLE")[0] == "master":
        assert old.call("INFO", "persistence")["rdb_changes_since_last_save"] == before


async def fails(arena: SetArena, how: signal.Signals, **options: Any) -> int:
    """The master of the queue fails under load, and work goes on with another; when it failed (ns)."""
    app = arena.app(**{"durability": options["durability"]} if options else {})
    forget_scripts(arena.servers)
    async with app, arena.busy(app):
        old = arena.home()
        at = arena.fault(old, how)
        took = await arena.back_after(at, how.name)
        assert took <= DOWN_AFTER[type(arena.servers)] + 3.0 + PATIENCE
        await arena.more()
        assert_scripts_were_missing(arena.home())
        if how is STOP:
            await nobody_stays_on(old)
        await arena.more()
    await asyncio.to_thread(arena.servers.settle)
    return at


@quickly((LAST, STOP))
async def test_f14_the_master_fails_and_sentinels_name_another(on: On, kind: str, how: signal.Signals) -> None:
    arena = on(SentinelSet, kind)
    at = await fails(arena, how)
    await arena.verdict_after(at, FORGETS)


@quickly((FIRST, KILL))
async def test_f14_what_a_replica_confirmed_survives(on: On, kind: str, how: signal.Signals) -> None:
    arena = on(SentinelSet, kind, replicas=2, config={"min-replicas-to-write": "1", "min-replicas-max-lag": "2"})
    at = await fails(arena, how, durability="replicas:1")
    verdict = await arena.verdict_after(at, FORGETS)
    assert verdict.lost == []


@quickly((FIRST, STOP), (LAST, KILL))
async def test_f17_a_master_of_a_cluster_fails(on: On, kind: str, how: signal.Signals) -> None:
    arena = on(ClusterSet, kind, replicas=1)
    at = await fails(arena, how)
    await arena.verdict_after(at, FORGETS)


async def makes_room(arena: SetArena, order: Callable[[], object]) -> tuple[int, int]:
    """The master of the queue is asked to let a replica take over, under load; when (ns), and when it had."""
    app = arena.app()
    async with app, arena.busy(app):
        old = arena.home()
        at = arena.note_fault("order")
        order()
        await until(lambda: arena.home() is not old, 10)
        moved = arena.note_fault("moved")
        took = await arena.back_after(moved, "the change of masters")
        assert took <= 3.0 + PATIENCE
        await until(lambda: not clients(old), 2 * LOOK_EVERY + PATIENCE)
        await arena.more()
    await asyncio.to_thread(arena.servers.settle)
    return at, moved


@pytest.mark.parametrize("kind", [LAST, *each_other(LAST)])
async def test_f14_a_master_is_asked_to_make_room(on: On, kind: str) -> None:
    """It takes writes until a Sentinel tells it, and what it is sent until a client looks is lost."""
    arena = on(SentinelSet, kind)
    assert isinstance(arena.servers, SentinelSet)
    sentinel = arena.servers.sentinels[0]
    at, moved = await makes_room(arena, lambda: sentinel.call("SENTINEL", "FAILOVER", "mymaster"))
    await arena.verdict_after(moved, (moved - at) / 1e9, LOOK_EVERY + FORGETS)


@pytest.mark.parametrize("kind", [FIRST, *each_other(FIRST)])
async def test_f17_a_master_is_asked_to_make_room(on: On, kind: str) -> None:
    arena = on(ClusterSet, kind, replicas=1)
    assert isinstance(arena.servers, ClusterSet)
    replica = arena.servers.replica_of(arena.home())
    await makes_room(arena, lambda: replica.call("CLUSTER", "FAILOVER"))
    (await arena.verdict()).assert_base()


@pytest.mark.parametrize("kind", PROGRAMS)
async def test_a_master_that_lacks_replicas_is_waited_for(kind: str, tmp_path: Path) -> None:
    with Node(kind, {"min-replicas-to-write": "1"}) as node:
        app = application(node.url, "f", tmp_path)
        worker = app.worker()
        async with app:
            call = asyncio.create_task(app.tasks["work"].enqueue("n"))
            running = asyncio.create_task(worker.run())
            await asyncio.sleep(0.3)
            assert not call.done()
            assert not running.done()
            node.call("CONFIG", "SET", "min-replicas-to-write", "0")
            assert await (await call).result(timeout=10) == "n"
            worker.stop()
            await running
