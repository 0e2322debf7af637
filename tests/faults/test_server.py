"""Redis dies, stops, is full, or would drop jobs; the process that has it dies. F11 to F13, F26, F27, F42.

Elsewhere: F26 tests/broker/test_full.py (each verb), F27 tests/broker/test_connect.py (which settings are refused), F42
tests/broker/test_embedded.py and test_takeover.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import QueueFull, StreamQ, UnsuitableServer
from streamq.broker.history import TransitionKind
from tests.conftest import PROGRAMS
from tests.faults.arena import PATIENCE, QUEUE, Arena
from tests.faults.checker import Verdict, evidence, judge
from tests.faults.ledger import ACKED, COMMIT, FAULT, START
from tests.faults.servers import Server
from tests.faults.tasks import LEASE, application
from tests.worker.crews import PROJECT

KINDS = [pytest.param({"kind": kind}, id=kind) for kind in PROGRAMS]
FORGETS = 2_000_000_000  # ns: what the system has not written to the disk when `everysec` is set
EVICTS = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}


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
    back = time.time_ns()
    await more(arena, 1)
    arena.measured("from the server's return to the next recorded end", arena.next_after(back, COMMIT))
    return arena.entries(FAULT)[-1].at


def assert_nobody_was_robbed(verdict: Verdict) -> None:
    """The downtime made no live worker look dead: a job began again only if its own worker had given it up."""
    assert verdict.unexplained() == []
    assert verdict.overlaps == {}


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
    forgetful = ("twice", "overstarted", "overlapping", "stale")
    verdict.assert_base(but=["lost", *forgetful])
    late = [entry for entry in arena.entries() if killed - FORGETS <= entry.at <= killed]
    assert set(verdict.lost) <= {entry.key for entry in late if entry.event == ACKED}
    assert {job_id for name in forgetful for job_id in getattr(verdict, name)} <= {entry.job_id for entry in late}
    arena.measured("acknowledged jobs that were lost", len(verdict.lost), "")
    arena.measured("jobs that were completed twice", len(verdict.twice), "")


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
        resumed = time.time_ns()
        redis_server.signal(signal.SIGCONT)
        await more(arena, 1)
        took = arena.measured("from SIGCONT to the next recorded end", arena.next_after(resumed, COMMIT))
        assert took <= 5.0 + PATIENCE
        await more(arena, 100)
    verdict = await arena.verdict()
    verdict.assert_base()
    assert_nobody_was_robbed(verdict)
    taken = [t.at - resumed / 1e6 for t in await arena.history() if t.kind is TransitionKind.TAKEN_OVER and t.seconds]
    assert [ms for ms in taken if 0 < ms < LEASE * 1000] == []  # nobody sweeps for one lease


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
        room = time.time_ns()
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
        arena.measured("from the first free memory to the next start", arena.next_after(room))
        arena.client.config_set("maxmemory", 0)
    (await arena.verdict()).assert_base(done=11)


@pytest.mark.parametrize("redis_server", [EVICTS], indirect=True)
@pytest.mark.parametrize("config", ["+config", "-config"])
async def test_f27_a_server_that_evicts_is_refused_by_producers_and_workers(arena: Arena, config: str) -> None:
    arena.client.acl_setuser("default", enabled=True, commands=[config])  # it is found out without CONFIG, too
    producer, consumer = arena.app(direct=True), arena.app(direct=True)
    before = arena.client.dbsize()
    with pytest.raises(UnsuitableServer, match="allkeys-lru"):
        await producer.tasks["work"].enqueue("n")
    with pytest.raises(UnsuitableServer, match="allkeys-lru"):
        await asyncio.wait_for(consumer.worker().run(), 20)
    assert arena.client.dbsize() == before == 0


OWNER = """
import sys
from pathlib import Path
from tests.faults.ledger import ACKED, INTENT, ledger_of
from tests.faults.tasks import application
import asyncio

async def main(url, namespace, folder):
    app, ledger = application(url, namespace, Path(folder)), ledger_of(Path(folder))
    async with app, app.worker(concurrency=5):
        for n in range(20):
            ledger.note(INTENT, f"h{n}")
            job = await app.tasks["hold"].enqueue(f"h{n}")
            ledger.note(ACKED, f"h{n}", job.id)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_f42_the_owner_of_an_embedded_server_is_killed(arena: Arena, tmp_path: Path) -> None:
    url, namespace = f"embedded://{tmp_path}/data", arena.namespace
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, url, namespace, str(arena.folder), cwd=PROJECT
    )
    await arena.seen(ACKED, 20)
    await arena.seen(START, 5)
    owner.kill()
    await owner.wait()
    arena.ledger.note(FAULT, f"kill-{owner.pid}")
    killed = arena.entries(FAULT)[-1].at
    (arena.folder / "go").touch()
    app = application(url, namespace, arena.folder)
    async with app, app.worker(concurrency=5):  # at once
        arena.client = redis.Redis.from_url(app.broker.connections.url_for_children)
        await arena.settled()
    async with app:
        verdict = judge(await evidence(app.broker, arena.client, QUEUE, arena.entries()))
    verdict.assert_base(done=20)
    assert verdict.unexplained() == []
    arena.measured("from the owner's SIGKILL to the next start, on a new server", arena.next_after(killed))
