"""Redis dies, stops, forgets, or is full. F11 to F13, F23 to F27.

Elsewhere: F23 tests/worker/test_outages.py (scripts are forgotten again and again), F24 ibidem (everything is flushed
under load, and while nothing happens), F26 tests/broker/test_full.py (each verb), F27 tests/broker/test_connect.py (a
server that evicts).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from streamq import BrokerError, QueueFull, StreamQ
from tests.conftest import PROGRAMS
from tests.faults.arena import PATIENCE, Arena
from tests.faults.checker import Verdict
from tests.faults.ledger import ABORT, ACKED, COMMIT, END, FAULT, START
from tests.faults.servers import Server
from tests.faults.tasks import LEASE
from tests.worker.waits import until

KINDS = [pytest.param({"kind": kind}, id=kind) for kind in PROGRAMS]


@asynccontextmanager
async def busy(arena: Arena, app: StreamQ[Any], workers: int = 2) -> AsyncIterator[None]:
    """Two workers here, and a producer that goes on whatever happens; when the block ends, so do all jobs."""

    async def produce() -> None:
        number = 0
        while True:
            await arena.enqueue(app, "work", f"n{number}", arena.dice.uniform(0.01, 0.1))
            number += 1
            await asyncio.sleep(0.002)

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(app.worker(concurrency=20))
        producer = asyncio.create_task(produce())
        try:
            yield
        finally:
            producer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producer
        await arena.settled()


async def more(arena: Arena, jobs: int) -> None:
    """So many more jobs come to their end."""
    await arena.seen(COMMIT, len(arena.entries(COMMIT)) + jobs)


async def crash(arena: Arena, server: Server, away: float) -> int:
    """Kill it under load and start it again; when that was (ns)."""
    await more(arena, 100)
    await asyncio.to_thread(server.kill)
    arena.ledger.note(FAULT, "redis")
    await asyncio.sleep(away)  # so long it is away
    await asyncio.to_thread(server.start)
    return arena.entries(FAULT)[-1].at


def assert_nobody_was_robbed(verdict: Verdict) -> None:
    """The downtime made no live worker look dead: a job started again only if its own worker had lost it."""
    again = [job_id for job_id, starts in verdict.starts.items() if starts > 1]
    assert len(again) <= 0.02 * len(verdict.starts), again


@pytest.mark.parametrize("redis_server", KINDS, indirect=True)
async def test_f11_redis_is_killed_and_has_written_everything(arena: Arena, redis_server: Server) -> None:
    app = arena.app(direct=True)
    async with app, busy(arena, app):
        for _ in range(2):
            await crash(arena, redis_server, arena.dice.uniform(0.2, 1.5) * LEASE)
        await more(arena, 100)
    verdict = await arena.verdict()
    verdict.assert_base()
    assert verdict.done >= len(arena.entries(ACKED))  # the last call was cut off, and perhaps carried out
    assert_nobody_was_robbed(verdict)


@pytest.mark.parametrize("redis_server", [{"fsync": "everysec"}], indirect=True)
async def test_f12_redis_is_killed_and_may_have_forgotten_two_seconds(arena: Arena, redis_server: Server) -> None:
    app = arena.app(direct=True)
    async with app, busy(arena, app):
        killed = await crash(arena, redis_server, 0.3)
        await more(arena, 100)
    verdict = await arena.verdict()
    # What was forgotten may have been a job, its start, or its end: then it ended a second time, and a worker knows.
    verdict.assert_base(but=["lost", "twice", "overstarted", "overlapping", "stale"])
    recent = {e.key for e in arena.entries(ACKED) if killed - 2_000_000_000 <= e.at <= killed}
    ended = {e.job_id for e in arena.entries(COMMIT) if killed - 2_000_000_000 <= e.at <= killed}
    assert set(verdict.lost) <= recent
    assert set(verdict.twice) <= ended


@pytest.mark.parametrize(
    "redis_server",
    [KINDS[0], *(pytest.param({"kind": kind}, id=kind, marks=pytest.mark.slow) for kind in list(PROGRAMS)[1:])],
    indirect=True,
)
async def test_f13_redis_stands_still_for_three_leases(arena: Arena, redis_server: Server) -> None:
    app = arena.app(direct=True)
    async with app, busy(arena, app):
        await more(arena, 100)
        redis_server.signal(signal.SIGSTOP)
        await asyncio.sleep(3 * LEASE)  # so long it stands still
        redis_server.signal(signal.SIGCONT)
        began = time.monotonic()
        await more(arena, 1)
        assert time.monotonic() - began <= 5.0 + PATIENCE
        await more(arena, 100)
    verdict = await arena.verdict()
    verdict.assert_base()
    assert_nobody_was_robbed(verdict)


async def test_f24_what_was_in_flight_at_a_flush_leaves_no_ghost(arena: Arena) -> None:
    app = arena.app(direct=True)
    async with app, app.worker(concurrency=10):
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(15)])
        await arena.seen(START, 10)
        arena.client.flushall()
        (arena.folder / "go").touch()
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
        await until(lambda: len(arena.entries(END)) + len(arena.entries(ABORT)) == 11, 10)
        # A turn makes the group of a stream that holds jobs; the list of queues is the listener's, at its next read.
        async with asyncio.timeout(10):
            while await app.broker.queues() != ["default"]:
                await asyncio.sleep(0.01)
    verdict = await arena.verdict()
    verdict.assert_base(done=1, but=["lost"])
    assert len(verdict.lost) == 15
    assert [entry.job_id for entry in arena.entries(COMMIT)] == [job.id]


async def test_f25_a_group_disappears(arena: Arena) -> None:
    app = arena.app(direct=True)
    async with app, busy(arena, app, workers=1):
        for _ in range(3):
            await more(arena, 50)
            arena.client.xgroup_destroy(app.broker.keys("default").stream(0), "w")
        await more(arena, 50)
    verdict = await arena.verdict()
    verdict.assert_base(but=["overstarted", "overlapping"])  # the new group knows of no delivery


async def test_f25_a_stream_is_deleted(arena: Arena) -> None:
    app = arena.app(direct=True)
    k = app.broker.keys("default")
    async with app, app.worker(concurrency=20):
        before = await arena.enqueue_many(app, "hold", [f"b{n}" for n in range(30)])
        await arena.seen(START, 20)
        arena.client.delete(k.stream(0))
        after = await arena.enqueue_many(app, "work", [f"a{n}" for n in range(50)])
        (arena.folder / "go").touch()
        assert [await job.result(timeout=20) for job in after] == [f"a{n}" for n in range(50)]
        # What was deleted is lost to everybody, whether it ran or waited; an operator sees where it should be.
        gone = [job.id.encode() for job in before]
        assert sorted(arena.client.hkeys(k.jobs)) == sorted(gone)
        arena.client.hdel(k.jobs, *gone)
    verdict = await arena.verdict()
    verdict.assert_base(done=50, but=["lost"])
    assert sorted(verdict.lost) == sorted(f"b{n}" for n in range(30))


async def test_f25_a_foreign_key_in_the_place_of_a_stream_stops_one_queue(arena: Arena) -> None:
    app = arena.app(direct=True)
    stream = app.broker.keys("broken").stream(0)
    async with app, app.worker(queues=["default"]):
        worker = app.worker(queues=["broken"])
        running = asyncio.create_task(worker.run())
        await (await arena.enqueue(app, "work", "sound", queue="broken")).result(timeout=10)
        arena.client.delete(stream)
        arena.client.set(stream, "not a stream")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await app.tasks["work"].using(queue="broken").enqueue("refused")
        with pytest.raises((redis.ResponseError, BrokerError), match="WRONGTYPE"):
            await asyncio.wait_for(running, 20)
        jobs = await arena.enqueue_many(app, "work", [f"n{n}" for n in range(50)])
        assert [await job.result(timeout=10) for job in jobs] == [f"n{n}" for n in range(50)]
        arena.client.delete(stream)
        async with app.worker(queues=["broken"]):
            job = await arena.enqueue(app, "work", "again", queue="broken")
            assert await job.result(timeout=10) == "again"


@pytest.mark.parametrize("redis_server", KINDS, indirect=True)
async def test_f26_the_memory_is_full_and_then_there_is_room(arena: Arena, redis_server: Server) -> None:
    app = arena.app(direct=True)
    async with app, app.worker(concurrency=10):
        first = await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(10)])
        await arena.seen(START, 10)
        arena.client.set("filler", b"x" * 8_000_000)
        arena.client.config_set("maxmemory", int(arena.client.info("memory")["used_memory"]) - 4_000_000)
        before = arena.client.dbsize()
        for n in range(20):
            with pytest.raises(QueueFull, match="nothing was written"):
                await app.tasks["work"].enqueue(f"refused{n}")
        assert arena.client.dbsize() == before
        (arena.folder / "go").touch()
        assert [await job.result(timeout=10) for job in first] == [f"h{n}" for n in range(10)]
        arena.client.delete("filler")
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
        arena.client.config_set("maxmemory", 0)
    (await arena.verdict()).assert_base(done=11)
