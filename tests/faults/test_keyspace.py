"""What others do to the server's scripts and keys: F23 to F25.

Elsewhere: F23 tests/worker/test_outages.py (nobody logs a word), F24 ibidem (under load, and while nothing happens).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from streamq import BrokerError, StreamQ
from tests.faults.arena import QUEUE, Arena
from tests.faults.ledger import ABORT, COMMIT, END, START
from tests.faults.test_server import busy, more
from tests.worker.waits import until


async def test_f23_the_server_forgets_its_scripts_again_and_again(arena: Arena) -> None:
    app, forgotten = arena.app(direct=True), 0
    async with app, busy(arena, app):
        for _ in range(15):
            await more(arena, 20)
            arena.client.script_flush("SYNC")
            forgotten = time.time_ns()
        await more(arena, 20)
        arena.measured("from SCRIPT FLUSH to the next recorded end", arena.next_after(forgotten, COMMIT))
    verdict = await arena.verdict()
    verdict.assert_base()
    assert set(verdict.starts.values()) == {1}


async def test_f24_what_was_in_flight_at_a_flush_leaves_no_ghost(arena: Arena) -> None:
    app = arena.app(direct=True)
    async with app, app.worker(concurrency=10):
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(15)])
        await arena.seen(START, 10)
        arena.client.flushall()
        flushed = time.time_ns()
        (arena.folder / "go").touch()
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
        arena.measured("from FLUSHALL to the next start", arena.next_after(flushed))
        await until(lambda: len(arena.entries(END)) + len(arena.entries(ABORT)) == 11, 10)
        # A turn makes the group of a stream that holds jobs; the list of queues is the listener's, at its next read.
        async with asyncio.timeout(10):
            while await app.broker.queues() != ["default"]:
                await asyncio.sleep(0.01)
    verdict = await arena.verdict()
    verdict.assert_base(done=1, but=["lost"])
    assert len(verdict.lost) == 15
    assert [entry.job_id for entry in arena.entries(COMMIT)] == [job.id]


@asynccontextmanager
async def untouched(arena: Arena, app: StreamQ[Any]) -> AsyncIterator[None]:
    """A worker that serves another queue beside the default one, and a producer of jobs of that queue: these do not
    notice what is done to the default one."""
    some = asyncio.Event()

    async def produce() -> None:
        for n in count():
            await arena.enqueue(app, "work", f"o{n}", 0.005, queue="other")
            if n == 20:
                some.set()
            await asyncio.sleep(0.005)

    async with app.worker(queues=[QUEUE, "other"], concurrency=20):
        producer = asyncio.create_task(produce())
        yield
        await some.wait()
        producer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await producer
        await arena.settled("other")
    verdict = await arena.verdict("other")
    verdict.assert_base()
    assert verdict.done > 20
    assert set(verdict.starts.values()) == {1}


async def test_f25_a_group_disappears(arena: Arena) -> None:
    app, destroyed = arena.app(direct=True), 0
    async with app, untouched(arena, app), busy(arena, app, workers=1):
        for _ in range(3):
            await more(arena, 50)
            arena.client.xgroup_destroy(app.broker.keys(QUEUE).stream(0), "w")
            destroyed = time.time_ns()
        await more(arena, 50)
        again = min(e.at for e in arena.entries(START) if e.at > destroyed and e.key.startswith("n"))
        arena.measured("from the end of the group to the next start", (again - destroyed) / 1e9)
    verdict = await arena.verdict()
    verdict.assert_base(but=["overstarted", "overlapping"])  # the new group knows of no delivery


async def test_f25_a_stream_is_deleted(arena: Arena) -> None:
    app = arena.app(direct=True)
    k = app.broker.keys(QUEUE)
    async with app, untouched(arena, app):
        before = await arena.enqueue_many(app, "hold", [f"b{n}" for n in range(30)])
        await arena.seen(START, 20)
        arena.client.delete(k.stream(0))
        deleted = time.time_ns()
        after = await arena.enqueue_many(app, "work", [f"a{n}" for n in range(50)])
        (arena.folder / "go").touch()
        assert [await job.result(timeout=20) for job in after] == [f"a{n}" for n in range(50)]
        again = min(e.at for e in arena.entries(START) if e.at > deleted and e.key.startswith("a"))
        arena.measured("from the end of the stream to the next start", (again - deleted) / 1e9)
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
    async with app, app.worker(queues=[QUEUE, "broken"]):
        await (await arena.enqueue(app, "work", "sound", queue="broken")).result(timeout=10)
        arena.client.delete(stream)
        arena.client.set(stream, "not a stream")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await app.tasks["work"].using(queue="broken").enqueue("refused")
        jobs = await arena.enqueue_many(app, "work", [f"n{n}" for n in range(50)])
        assert [await job.result(timeout=10) for job in jobs] == [f"n{n}" for n in range(50)]
        arena.client.delete(stream)
        deleted = time.time_ns()
        job = await arena.enqueue(app, "work", "again", queue="broken")
        assert await job.result(timeout=20) == "again"
        (again,) = arena.entries(START, key="again")
        arena.measured("from the end of a foreign key to the next start", (again.at - deleted) / 1e9)
    for queue, done in ((QUEUE, 50), ("broken", 2)):
        verdict = await arena.verdict(queue)
        verdict.assert_base(done=done)
        assert set(verdict.starts.values()) == {1}
