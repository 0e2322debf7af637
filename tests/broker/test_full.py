"""A server whose memory is full: nothing half-written, and the workers go on, for only they make room."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from streamq.broker.broker import Broker
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.history import History
from streamq.broker.results import Results
from streamq.core.options import AppOptions
from streamq.errors import QueueFull
from tests.broker.byhand import LEASE, QUEUE, Server, Worker, again, buried, done, job, record
from tests.conformance.test_leases import held
from tests.conftest import PROGRAMS


@pytest.fixture(scope="module", params=PROGRAMS)
def small(request: pytest.FixtureRequest) -> Iterator[str]:
    program: Path = PROGRAMS[request.param]
    with EmbeddedServer.start(binary=program) as server:
        yield server.url


@pytest.fixture
async def broker(small: str) -> AsyncIterator[Broker]:
    broker = Broker(small, AppOptions(namespace="full", timeout=2.0))
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
def look(small: str, broker: Broker) -> Iterator[Server]:
    with redis.Redis.from_url(small) as client:
        client.flushall()
        yield Server(client, broker)
        client.config_set("maxmemory", 0)


@pytest.fixture
def fill(look: Server) -> Callable[[], None]:
    def fill() -> None:
        # Valkey frees what was flushed or deleted in the background: memory that comes free later would be room.
        while int(look.client.info("memory")["lazyfree_pending_objects"]):
            time.sleep(0.001)
        look.client.set("filler", b"x" * 8_000_000)
        used = int(look.client.info("memory")["used_memory"])
        look.client.config_set("maxmemory", used - 4_000_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            look.client.set("more", b"x")

    return fill


def free(look: Server) -> None:
    look.client.delete("filler")


async def test_add_is_refused_whole(broker: Broker, look: Server, fill: Callable[[], None], worker: Worker) -> None:
    await broker.add(QUEUE, [job("running"), job("waiting")])
    running = await worker.one()
    fill()
    before = look.lengths(), look.unfinished(), look.client.dbsize()
    batches = [job()], [job(delay=500)], [job(key="k", fingerprint="f")], [job(own_id=True), job(delay=9, priority=4)]
    for batch in batches:
        with pytest.raises(QueueFull, match="nothing was written"):
            await broker.add(QUEUE, batch)
        assert (look.lengths(), look.unfinished(), look.client.dbsize()) == before
    assert await worker.settle(running, done()) == "ok"
    assert look.record("running") == record()
    free(look)
    assert [each.status for each in await broker.add(QUEUE, [job()])] == ["new"]
    assert len(await worker.take()) == 2


async def test_every_way_to_settle_works(
    broker: Broker, look: Server, fill: Callable[[], None], worker: Worker, other: Worker
) -> None:
    await broker.add(QUEUE, [job(name, priority=1) for name in ("done", "buried", "late", "again", "released", "lost")])
    taken = {each.job_id: each for each in await worker.take()}
    look.expire(taken["lost"])
    await other.sweep()
    fill()
    assert await worker.settle(taken["lost"], done()) == "fenced"
    assert await worker.settle(taken["released"], done()) == "ok"
    assert await worker.settle(taken["buried"], buried(taken["buried"])) == "ok"
    assert await worker.settle(taken["late"], again(taken["late"], 60_000)) == "ok"
    assert await worker.settle(taken["again"], again(taken["again"])) == "ok"
    assert await worker.release(taken["done"]) == "ok"
    assert (await worker.one()).job_id == "again"
    assert [each.job_id for each in await other.sweep()] == ["done"]
    assert [each.job_id for each in await broker.dead(QUEUE)] == ["buried"]


async def test_the_history_is_refused_and_nothing_else(
    broker: Broker, look: Server, fill: Callable[[], None], worker: Worker, other: Worker
) -> None:
    await broker.add(QUEUE, [job("lost")])
    delivery = await worker.one()
    look.expire(delivery)
    (taken,) = await other.sweep()
    fill()
    assert await worker.settle(delivery, done()) == "fenced"
    assert "refused" not in [each.kind for each in await History(broker).of_job(QUEUE, "lost")]
    assert await other.settle(taken, done()) == "ok"
    look.assert_clean()


async def test_leases_are_renewed(broker: Broker, look: Server, fill: Callable[[], None], worker: Worker) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    look.expire(delivery)
    fill()
    renewer = broker.renewer()
    assert renewer.renew(QUEUE, "w1", held(delivery), b"info", LEASE) == ([], {})
    assert renewer.renew(QUEUE, "w1", [], b"info", LEASE) == ([], {})
    renewer.close()
    assert (await broker.find(QUEUE, "a")).idle < LEASE
    assert await broker.leave(QUEUE, "w1") == 1


async def test_a_worker_can_start(small: str, broker: Broker, look: Server, fill: Callable[[], None]) -> None:
    await broker.add(QUEUE, [job("a")])
    await broker.prepare(QUEUE)
    fill()
    fresh = Broker(small, broker.options)
    await fresh.open()
    await fresh.prepare(QUEUE)
    started = Worker(fresh, "w9")
    assert await started.settle(await started.one(), done()) == "ok"
    await fresh.close()


async def test_promotion_revival_and_schedules_write_all_or_nothing(
    broker: Broker, look: Server, fill: Callable[[], None], worker: Worker
) -> None:
    broker.now = lambda: 1_000
    await broker.add(QUEUE, [job("dead")])
    delivery = await worker.one()
    await worker.settle(delivery, buried(delivery))
    await broker.add(QUEUE, [job("due", delay=5)])
    broker.now = lambda: 2_000
    fill()
    for refused in (
        lambda: broker.promote(QUEUE),
        lambda: broker.revive(QUEUE, [job("dead")]),
        lambda: broker.fire(QUEUE, "every", 1_500, job()),
    ):
        with pytest.raises((QueueFull, redis.exceptions.OutOfMemoryError)):
            await refused()
        assert look.lengths() == 0
        assert list(look.unfinished()) == ["due"]
    free(look)
    assert await broker.promote(QUEUE) == (1, None)
    assert await broker.revive(QUEUE, [job("dead")]) == 1
    assert await broker.fire(QUEUE, "every", 1_500, job())


async def test_waiting_and_cancelling(
    broker: Broker, look: Server, fill: Callable[[], None], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.broker.results._REREAD", 0.05)
    await broker.add(QUEUE, [job("a"), job("b"), job("c", delay=60_000)])
    delivery = await worker.one()
    fill()
    results = Results(broker)
    assert await broker.cancel(QUEUE, "b", "no", b"", 0) == "cancelled"
    assert await broker.cancel(QUEUE, "c", "no", b"", 0) == "cancelled"
    await worker.settle(delivery, done())
    assert await results.wait(QUEUE, "a", 5, known=True) == record()
    await results.close()
    look.assert_clean()
