"""Schedules whose schedulers die, and clocks that are wrong. F31, F34.

Elsewhere: F32 tests/worker/test_scheduler.py (after ten missed periods), F33 tests/core/test_cron.py (both changes of
the clock, three zones), F34 a server's clock that is set test_jumps.py.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from streamq.broker.history import TransitionKind
from tests.faults.arena import Arena
from tests.faults.ledger import INTENT, START, Entry
from tests.faults.tasks import LEASE, skewed, ticking

PERIOD = 0.2
EARLY = 2  # ms; the server counts in whole ones


def occurrences(arena: Arena) -> dict[int, list[Entry]]:
    """Epoch ms -> the starts of its job."""
    found: dict[int, list[Entry]] = {}
    for entry in arena.entries(START):
        if entry.key.startswith("cron-"):
            found.setdefault(int(entry.key.rpartition("-")[2]), []).append(entry)
    return found


def assert_all_fired_once_and_none_early(arena: Arena) -> None:
    found, step = occurrences(arena), round(PERIOD * 1000)
    assert sorted(found) == list(range(min(found), max(found) + 1, step))
    assert [ms for ms, starts in found.items() if starts[0].at / 1e6 < ms - EARLY] == []


@pytest.mark.parametrize(("schedulers", "kills"), [(3, 5), pytest.param(5, 60, marks=pytest.mark.slow)])
async def test_f31_schedulers_are_killed_one_after_the_other(arena: Arena, schedulers: int, kills: int) -> None:
    app = arena.app()
    async with app, arena.crew(build=ticking, settings={"period": PERIOD}) as crew:
        alive = [await crew.start() for _ in range(schedulers)]
        for _ in range(kills):
            await arena.seen(START, len(arena.entries(START)) + 2)
            alive.pop(arena.dice.randrange(len(alive))).kill()
            alive.append(await crew.start())
        await arena.seen(START, len(arena.entries(START)) + 2)
        assert await crew.stop() == [0] * schedulers
        async with app.worker(schedules=False):  # what was fired last
            app.task(name="tick")(nothing)
            await arena.settled()
    verdict = await arena.verdict()
    verdict.assert_base(but=["phantom"])  # nobody asked for them but the schedule
    found, step = occurrences(arena), round(PERIOD * 1000)
    assert len(found) >= 2 * kills
    ended = {int(job.rpartition("-")[2]) for job in verdict.phantom}
    assert sorted(ended) == list(range(min(ended), max(ended) + 1, step))
    assert verdict.done == len(ended)
    late = [starts[0].at / 1e9 - ms / 1e3 for ms, starts in found.items()]
    assert min(late) >= -EARLY / 1e3
    arena.measured("how late an occurrence starts, the median", median(late))
    arena.measured("how late an occurrence starts, the latest", max(late))


async def nothing() -> None: ...


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_f34_a_worker_s_clock_is_wrong(arena: Arena, ahead: float) -> None:
    app = arena.app()
    async with app, arena.crew(build=skewed, settings={"ahead": ahead, "period": PERIOD}) as crew:
        await crew.start()
        await crew.start()
        for n in range(20):
            await arena.enqueue(app, "work", f"d{n}", countdown=0.5)
        await arena.enqueue(app, "work", "long", 2.5 * LEASE)
        fresh = [await arena.enqueue(app, "work", f"e{n}", expires=60) for n in range(5)]
        assert [await job.result(timeout=10) for job in fresh] == [f"e{n}" for n in range(5)]
        await arena.seen("END", 1, key="long")
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base(but=["phantom", "left"])  # perhaps an occurrence that was fired at the end
    asked = {entry.key: entry.at for entry in arena.entries(INTENT)}
    begun = {entry.key: entry.at for entry in arena.entries(START)}
    assert [key for key in asked if key.startswith("d") and begun[key] - asked[key] < 500e6 - EARLY * 1e6] == []
    assert_all_fired_once_and_none_early(arena)
    assert occurrences(arena)
    assert set(verdict.starts.values()) <= {0, 1}  # nobody lost a lease that was renewed
    assert [t for t in await arena.history() if t.kind is TransitionKind.TAKEN_OVER] == []
    late = [(begun[key] - asked[key]) / 1e9 - 0.5 for key in asked if key.startswith("d")]
    arena.measured(f"a worker's clock {ahead:+.0f} s: how late a job due in 0.5 s starts", max(late))


async def ahead_of_all_others(arena: Arena, build: Any = skewed) -> None:
    """A scheduler that is a minute ahead and does not know it, beside a sound one."""
    app = arena.app()
    async with app, arena.crew(settings={"period": PERIOD}) as crew:
        await crew.start(build=ticking)
        await arena.seen(START, 2)
        await crew.start(build=build, settings={"ahead": 60.0, "synced": False, "period": PERIOD})
        await arena.seen(START, len(arena.entries(START)) + 3, within=5)
        await crew.stop()


async def test_f34_a_scheduler_is_ahead_and_does_not_know_it(arena: Arena) -> None:
    await ahead_of_all_others(arena)
    assert_all_fired_once_and_none_early(arena)
