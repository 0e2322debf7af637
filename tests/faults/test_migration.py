"""F15 and F16: the slot of a queue moves to another master of the cluster under load."""

from __future__ import annotations

import asyncio
import re

import pytest

from streamq.broker.keys import Keys
from tests.conftest import PROGRAMS
from tests.faults.arena import PATIENCE, QUEUE
from tests.faults.sets import On, SetArena, on, running
from tests.topologies import ClusterSet
from tests.topologies.clusters import slot_of

pytestmark = pytest.mark.sets

__all__ = ["on", "running"]

QUICK, *OTHERS = PROGRAMS
PAUSE = 2.0  # seconds for which half of the keys are here and half are there
TIMES = 10
RETRIES = re.compile(r"next try in|^WARNING:streamq.worker:SIGTERM")


def cluster_of(arena: SetArena) -> ClusterSet:
    assert isinstance(arena.servers, ClusterSet)
    return arena.servers


def slot_in(arena: SetArena) -> int:
    return slot_of(Keys(arena.namespace, QUEUE).jobs)


def alarms(arena: SetArena) -> list[str]:
    """What the workers logged above INFO, but that they try again."""
    lines = [line for words in arena.words for line in words.splitlines()]
    return [line for line in lines if not line.startswith(("INFO:", "DEBUG:")) and not RETRIES.search(line)]


@pytest.mark.parametrize("kind", [QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
async def test_f15_a_slot_moves_key_by_key_and_stands_still_half_way(on: On, kind: str) -> None:
    arena = on(ClusterSet, kind)
    cluster, app = cluster_of(arena), arena.app()
    async with app, arena.busy(app):
        target = cluster.other_than(arena.home())
        began = arena.note_fault("leaves")
        await asyncio.to_thread(cluster.migrate, slot_in(arena), target, pause=PAUSE)
        arrived = arena.note_fault("arrived")
        arena.measured("time for which the slot was on its way", (arrived - began) / 1e9)
        assert await arena.back_after(arrived, "the slot's arrival") <= 5.0 + PATIENCE
        assert arena.home() is target
        await arena.more()
    (await arena.verdict()).assert_base()


async def test_f16_a_slot_moves_at_one_moment_again_and_again(on: On) -> None:
    if "embedded" not in PROGRAMS:
        pytest.skip("of the servers here only Valkey 9 can do that")
    arena = on(ClusterSet, "embedded")
    cluster, app = cluster_of(arena), arena.app()
    worst = 0.0
    async with app, arena.busy(app):
        for _ in range(TIMES):
            target = cluster.other_than(arena.home())
            began = arena.note_fault("moves")
            await asyncio.to_thread(cluster.migrate_atomically, slot_in(arena), target)
            assert arena.home() is target
            await arena.more(10)
            worst = max(worst, arena.silence(began))
        arena.measured(f"the longest time without a start, in {TIMES} moves", worst)
    (await arena.verdict()).assert_base()
    assert alarms(arena) == []
