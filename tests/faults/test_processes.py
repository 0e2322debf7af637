"""Workers that are killed, stopped, or told to go. F01, F02, F08 to F10.

Elsewhere: F09 one job at a time tests/worker/test_recovery.py, F43 tests/broker/test_connect.py and
tests/client/test_link.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import pytest

from streamq import StreamQ
from tests.faults.arena import PATIENCE, QUEUE, RECOVERY, Arena
from tests.faults.ledger import ABORT, COMMIT, END, START
from tests.faults.tasks import LEASE
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


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
async def test_f01_workers_are_killed_under_load(arena: Arena, kills: int) -> None:
    app = arena.app()
    async with app, arena.crew() as crew:
        alive = [await crew.start() for _ in range(3)]
        async with load(arena, app):
            for _ in range(kills):
                victim = alive.pop(arena.dice.randrange(len(alive)))
                await arena.running(victim.pid, 3)
                victim.kill()
                alive.append(await crew.start())
        await arena.settled()
        assert await crew.stop() == [0, 0, 0]
    verdict = await arena.verdict()
    verdict.assert_base()
    assert verdict.unexplained() == []
    assert len(verdict.recovery) >= kills
    slowest = arena.measured("slowest job, from SIGKILL to its next start", max(verdict.recovery.values()))
    assert slowest <= RECOVERY + PATIENCE


async def test_f01_the_dead_leave_the_list_of_workers(arena: Arena) -> None:
    lease = 0.5
    app = arena.app(lease=lease)
    async with app, arena.crew(settings={"lease": lease}) as crew:
        alive = [await crew.start() for _ in range(3)]
        await arena.enqueue_many(app, "work", [f"w{n}" for n in range(48)], 1.0, 0.0)
        for _ in range(2):
            hand = alive.pop()
            await arena.running(hand.pid)
            hand.kill()
        (left,) = alive
        began = time.monotonic()
        # A janitor looks every 8 to 12 leases, and believes in a worker for two leases after its last word.
        within = 14 * lease
        await until(lambda: all(f"-{left.pid}-" in name for name in consumers(arena, app)), within + PATIENCE)
        arena.measured("until two killed workers are forgotten, with a lease of 0.5 s", time.monotonic() - began)
        await arena.settled()
        assert await crew.stop() == [0]
    (await arena.verdict()).assert_base(done=48)


def consumers(arena: Arena, app: StreamQ[Any]) -> set[str]:
    """All that Redis knows of, but for `nobody`, to whom what was given back belongs."""
    k = app.broker.keys(QUEUE)
    found = {each["name"] for each in arena.client.xinfo_consumers(k.stream(0), "w")}
    alive = cast("list[bytes]", arena.client.zrange(k.workers, 0, -1))
    return {name.decode() for name in found | set(alive)} - {"nobody"}


async def test_f02_a_worker_is_stopped_and_comes_back_as_a_zombie(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew() as crew:
        zombie = await crew.start()
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(5)])
        await arena.enqueue_many(app, "work", [f"w{n}" for n in range(5)], 0.5)
        await arena.running(zombie.pid, 10)
        zombie.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        heir = await crew.start()
        await arena.running(heir.pid, 5)
        await arena.seen(COMMIT, 5)
        await asyncio.sleep(stopped + arena.dice.uniform(1.5, 3.0) * LEASE - time.monotonic())  # so long it stands
        resumed = time.time_ns()
        zombie.signal(signal.SIGCONT)
        # What it still held in its hands it lets go, though nobody says so to it but its own clock and the fence.
        await until(lambda: sum(e.pid == zombie.pid for e in arena.entries(ABORT)) >= 5, RECOVERY + PATIENCE)
        (arena.folder / "go").touch()
        await arena.settled()
        assert await crew.stop() == [0, 0]
    given_up = [e.at for e in arena.entries(ABORT) if e.pid == zombie.pid]
    took = arena.measured("from SIGCONT until the zombie has let go of its jobs", (max(given_up) - resumed) / 1e9)
    assert took <= LEASE / 5 + PATIENCE
    assert [e.key for e in arena.entries(START) if e.pid == zombie.pid and e.at > resumed] == []
    assert {entry.pid for entry in arena.entries(COMMIT)} == {heir.pid}
    verdict = await arena.verdict()
    verdict.assert_base(done=10)
    assert min(verdict.starts.values()) >= 2


async def test_f02_what_a_stopped_worker_was_handed_meanwhile_it_does_not_begin(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew() as crew:
        zombie = await crew.start()
        stream = app.broker.keys(QUEUE).stream(0)
        await arena.enqueue(app, "work", "first")
        await arena.settled()
        await until(lambda: arena.client.info("clients")["blocked_clients"] > 0)
        zombie.signal(signal.SIGSTOP)
        await arena.enqueue(app, "work", "late")
        await until(lambda: arena.client.xpending(stream, "w")["pending"] == 1)
        await crew.start()
        await arena.settled()
        resumed = time.time_ns()
        zombie.signal(signal.SIGCONT)
        await arena.enqueue_many(app, "work", [f"n{n}" for n in range(20)], 0.05)
        await arena.settled()
        await arena.seen(START, 1, key="n0")
        await asyncio.sleep(LEASE / 2)  # what it would still begin
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base(done=22)
    assert [e.key for e in arena.entries(START, key="late") if e.at > resumed] == []


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


async def test_f08_rolling_restarts_repeat_nothing(arena: Arena) -> None:
    app, took = arena.app(), list[float]()
    async with app, arena.crew(settings={"lease": 5.0}) as crew:
        alive = [await crew.start() for _ in range(3)]
        async with load(arena, app):
            for _ in range(6):
                old = alive.pop(0)
                await arena.running(old.pid, 3)
                told = time.monotonic()
                old.signal(signal.SIGTERM)
                alive.append(await crew.start())
                assert await old.ended() == 0
                took.append(time.monotonic() - told)
        await arena.settled()
        assert await crew.stop() == [0, 0, 0]
    verdict = await arena.verdict()
    verdict.assert_base()
    assert not arena.entries(ABORT)
    assert set(verdict.starts.values()) == {1}
    arena.measured("from SIGTERM to the end of the process, jobs of 20 to 200 ms", max(took))


async def test_f09_told_to_go_a_worker_gives_long_jobs_back_at_once(arena: Arena) -> None:
    app, lease = arena.app(lease=10.0), 10.0  # so that only giving back explains a start within seconds
    async with app, arena.crew(grace=1.0, settings={"lease": lease}) as crew:
        old = await crew.start()
        jobs = await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(10)])
        await arena.running(old.pid, 10)
        await crew.start()
        told = time.time_ns()
        old.signal(signal.SIGTERM)
        assert await old.ended() == 0
        again = (await arena.seen(START, 20))[10:]
        took = arena.measured("from SIGTERM, with 1 s of grace, to the jobs' next start", (again[-1].at - told) / 1e9)
        assert took <= 1.0 + lease / 8 + PATIENCE
        assert {entry.attempt for entry in again} == {1}  # no crash is counted, nor a start
        (arena.folder / "go").touch()
        assert [await job.result(timeout=20) for job in jobs] == [f"h{n}" for n in range(10)]
        assert await crew.stop() == [0]
    verdict = await arena.verdict()
    verdict.assert_base(done=10)
    assert set(verdict.starts.values()) == {2}


async def test_f10_killed_while_it_gives_back(arena: Arena) -> None:
    app = arena.app()
    async with app, arena.crew(grace=0.05) as crew:
        keys = [f"h{n}" for n in range(16)]
        await arena.enqueue_many(app, "hold", keys)
        hand = await crew.start()
        for _ in range(2):  # after two crashes they are suspects, and run one by one
            await arena.running(hand.pid, 16)
            hand.signal(signal.SIGTERM)
            await asyncio.sleep(arena.dice.uniform(0.0, 0.3))  # so long it has
            hand.kill()
            hand = await crew.start()
        (arena.folder / "go").touch()
        await arena.settled()
        assert await crew.stop() == [0]
    verdict = await arena.verdict()
    verdict.assert_base(done=16)
    assert verdict.unexplained() == []
    assert max(verdict.starts.values()) <= 3  # one more for each of the two
