"""Workers that are killed, stopped, told to go, or meet a job that takes them down. F01 to F10.

Elsewhere: F03 tests/worker/test_heartbeat.py (gets its own entry again), F04 ibidem (blocks the loop) and
test_watchdog.py (names it), F09 tests/worker/test_recovery.py (gives the job back at once), F42
tests/broker/test_embedded.py and test_takeover.py, F43 tests/broker/test_connect.py and tests/client/test_link.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from streamq import StreamQ
from tests.faults.arena import PATIENCE, QUEUE, RECOVERY, Arena
from tests.faults.crew import Crew
from tests.faults.ledger import ABORT, COMMIT, END, START
from tests.worker.waits import until


@asynccontextmanager
async def load(arena: Arena, app: StreamQ[Any], pause: float = 0.003) -> AsyncIterator[None]:
    """A producer of jobs of 20 to 200 ms, as long as the block lasts."""

    async def produce() -> None:
        for number in count():
            await arena.enqueue(app, "work", f"n{number}", arena.dice.uniform(0.02, 0.2))
            await asyncio.sleep(pause)

    producer = asyncio.create_task(produce())
    try:
        yield
    finally:
        producer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await producer


async def running(arena: Arena, pid: int, number: int = 1) -> None:
    """Wait until a process runs so many jobs."""

    def runs() -> int:
        mine = [entry.event for entry in arena.entries() if entry.pid == pid]
        return mine.count(START) - mine.count(END) - mine.count(ABORT)

    await until(lambda: runs() >= number, 20)


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
async def test_f01_workers_are_killed_under_load(arena: Arena, kills: int) -> None:
    app = arena.app()
    async with app, arena.crew() as crew:
        alive = [await crew.start() for _ in range(3)]
        async with load(arena, app):
            for _ in range(kills):
                victim = alive.pop(arena.dice.randrange(len(alive)))
                await running(arena, victim.pid, 3)
                victim.kill()
                alive.append(await crew.start())
        await arena.settled()
        assert await crew.stop() == [0, 0, 0]
        await until(lambda: no_consumers(arena, app), 10)
    verdict = await arena.verdict()
    verdict.assert_base()
    assert len(verdict.recovery) >= kills
    assert max(verdict.recovery.values()) <= RECOVERY + PATIENCE


async def no_consumers(arena: Arena, app: StreamQ[Any]) -> bool:
    """Those of the dead go with the janitor's next round."""
    await app.broker.tidy(QUEUE)
    return not arena.client.xinfo_consumers(app.broker.keys(QUEUE).stream(0), "w")


async def test_f02_a_worker_is_stopped_and_comes_back_as_a_zombie(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew() as crew:
        zombie = await crew.start()
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(5)])
        await arena.enqueue_many(app, "work", [f"w{n}" for n in range(5)], 0.5)
        await running(arena, zombie.pid, 10)
        zombie.signal(signal.SIGSTOP)
        heir = await crew.start()
        await running(arena, heir.pid, 5)
        await arena.seen(COMMIT, 5)
        zombie.signal(signal.SIGCONT)
        # What it still held in its hands it lets go, though nobody says so to it but its own clock and the fence.
        await until(lambda: sum(e.pid == zombie.pid for e in arena.entries(ABORT)) >= 5, RECOVERY + PATIENCE)
        (arena.folder / "go").touch()
        await arena.settled()
        assert await crew.stop() == [0, 0]
    assert {entry.pid for entry in arena.entries(COMMIT)} == {heir.pid}
    verdict = await arena.verdict()
    verdict.assert_base(done=10)
    assert min(verdict.starts.values()) >= 2


@pytest.mark.parametrize(("first", "again"), [(2.0, 0.1), (2.0, 2.0)], ids=["last", "first"])
async def test_f02_a_zombie_that_comes_to_its_end_records_nothing(arena: Arena, first: float, again: float) -> None:
    app = arena.app()
    async with app, app.worker(name="zombie", concurrency=5) as zombie:
        assert zombie.crew is not None
        zombie.crew.heartbeat.suspended = True  # it neither renews nor notices
        await arena.enqueue_many(app, "work", [f"w{n}" for n in range(5)], first, again)
        await arena.seen(START, 5)
        async with app.worker(name="heir"):
            await until(lambda: len(arena.entries(END)) + len(arena.entries(ABORT)) == 10)
            await arena.settled()
    verdict = await arena.verdict()
    verdict.assert_base(done=5)
    assert min(verdict.starts.values()) >= 2


@pytest.mark.parametrize(("task", "most"), [("grip", 3), ("crunch", 1)])
async def test_f05_a_job_that_holds_the_interpreter_ends_once(arena: Arena, task: str, most: int) -> None:
    # No thread can renew its lease, and so each worker loses it to the next: a dead letter, as after other crashes,
    # unless nobody was free to take it. In a child process it is a job like all others.
    app = arena.app()
    async with app, arena.crew(settings={"max_crashes": 2}) as crew:
        for _ in range(2):
            await crew.start()
        job = await arena.enqueue(app, task, "c", 2)
        await arena.settled()
        letters = await app.broker.dead(QUEUE)
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base()
    assert 1 <= verdict.starts[job.id] <= most
    assert verdict.done + sum(letter.reason.value == "crashed" for letter in letters) == 1
    assert verdict.done or task == "grip"


async def test_f06_an_endless_loop_becomes_a_dead_letter(arena: Arena) -> None:
    app, stall = arena.app(), 1.5
    async with app, arena.crew(stall_leases=stall, settings={"max_crashes": 1}) as crew:
        stuck, heir = await crew.start(), await crew.start()
        job = await arena.enqueue(app, "endless", "e")
        first, second = await arena.seen(START, 2)
        assert (second.at - first.at) / 1e9 <= stall + RECOVERY + PATIENCE
        assert {first.pid, second.pid} == {stuck.pid, heir.pid}
        (stuck if stuck.pid == first.pid else heir).kill()
        await crew.start()
        await arena.settled()
        (letter,) = await app.broker.dead(QUEUE)
        assert (letter.job_id, letter.reason.value) == (job.id, "crashed")
    assert len(arena.entries(START)) == 2


async def poisoned(arena: Arena, crew: Crew, innocents: int = 60) -> StreamQ[Any]:
    """One job that kills its worker among many that do not; whoever dies is replaced."""
    app = arena.app()
    async with app:
        await arena.enqueue(app, "poison", "poison")
        await arena.enqueue_many(app, "work", [f"i{n}" for n in range(innocents)], 0.3)
        alive = [await crew.start(), await crew.start()]
        unfinished = app.broker.keys(QUEUE).jobs
        async with asyncio.timeout(40):
            while arena.client.exists(unfinished):
                for n, each in enumerate(alive):
                    if not each.process.is_alive():
                        each.kill()  # it is dead; now the ledger says so
                        alive[n] = crew.begin()
                await asyncio.sleep(0.02)
        await crew.stop()
    return app


async def test_f07_a_poison_job_dies_alone(arena: Arena) -> None:
    max_crashes = 3
    async with arena.crew(settings={"max_crashes": max_crashes}) as crew:
        app = await poisoned(arena, crew)
    async with app:
        (letter,) = await app.broker.dead(QUEUE)
    assert letter.reason.value == "crashed"
    assert len(arena.entries(START, key="poison")) == max_crashes + 1
    (await arena.verdict()).assert_base(done=60)


async def test_f08_rolling_restarts_repeat_nothing(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew(settings={"lease": 5.0}) as crew:
        alive = [await crew.start() for _ in range(2)]
        async with load(arena, app):
            for _ in range(4):
                old = alive.pop(0)
                await running(arena, old.pid, 3)
                old.signal(signal.SIGTERM)
                alive.append(await crew.start())
                assert await old.ended() == 0
        await arena.settled()
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base()
    assert not arena.entries(ABORT)
    assert max(verdict.starts.values()) == 1


async def test_f10_killed_while_it_gives_back(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew(grace=0.05) as crew:
        keys = [f"h{n}" for n in range(16)]
        await arena.enqueue_many(app, "hold", keys)
        hand = await crew.start()
        for _ in range(2):  # after two crashes they are suspects, and run one by one
            await running(arena, hand.pid, 16)
            hand.signal(signal.SIGTERM)
            await asyncio.sleep(arena.dice.uniform(0.0, 0.3))  # so long it has
            hand.kill()
            hand = await crew.start()
        (arena.folder / "go").touch()
        await arena.settled()
        assert await crew.stop() == [0]
    verdict = await arena.verdict()
    verdict.assert_base(done=16)
    assert max(verdict.starts.values()) <= 4
