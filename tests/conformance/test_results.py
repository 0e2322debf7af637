"""Waiting for results, what operators see, and durability that was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import redis

from streamq.broker.broker import Broker
from streamq.broker.embedded import EmbeddedServer, find_server
from streamq.broker.inspector import Inspector, WorkerInfo
from streamq.broker.results import Results
from streamq.broker.wire import encode_record, encode_value
from streamq.core.job import Record, State
from streamq.core.outcome import Complete
from streamq.errors import BrokerError, JobNotFound, NotDurable, ResultExpired, ResultTimeout
from tests.broker.byhand import QUEUE, Server, Worker, done, job, record
from tests.broker.conftest import Brokers
from tests.conformance.places import Place


@pytest.fixture
async def results(broker: Broker) -> AsyncIterator[Results]:
    results = Results(broker)
    yield results
    await results.close()


def waiting(results: Results, job_id: str, timeout: float | None = 10.0) -> asyncio.Task[Record]:
    return asyncio.create_task(results.wait(QUEUE, job_id, timeout, known=True))


async def registered(look: Server, number: int) -> None:
    async with asyncio.timeout(10):
        while look.client.hlen(look.keys.side) < number:
            await asyncio.sleep(0)


async def test_a_result_that_is_there(broker: Broker, results: Results, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a")])
    await worker.settle(await worker.one(), done())
    assert await results.wait(QUEUE, "a", 5, known=True) == record()


async def test_a_result_that_comes_later(broker: Broker, results: Results, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    waiters = [waiting(results, "a"), waiting(results, "a")]
    await registered(look, 1)
    began = time.monotonic()
    await worker.settle(await worker.one(), done())
    assert await asyncio.gather(*waiters) == [record(), record()]
    assert time.monotonic() - began < 1.0  # pushed: reading again comes every two seconds
    look.assert_clean()


async def test_a_result_that_is_not_kept_is_not_told_either(
    broker: Broker, results: Results, worker: Worker, look: Server
) -> None:
    await broker.add(QUEUE, [job("a")])
    waiter = waiting(results, "a")
    await registered(look, 1)
    await worker.settle(await worker.one(), done(ttl=0))
    with pytest.raises(ResultExpired):  # one answer, whether the waiter came before the end or after it
        await waiter


async def test_a_result_too_large_for_a_message(broker: Broker, results: Results, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    waiter = waiting(results, "a")
    await registered(look, 1)
    large = msgspec.structs.replace(record(), result=encode_value("x" * 50_000))
    await worker.settle(await worker.one(), Complete(large, 60_000))
    assert await waiter == large


async def test_a_job_cancelled_while_it_is_awaited(broker: Broker, results: Results, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    waiter = waiting(results, "a")
    await registered(look, 1)
    await broker.cancel(QUEUE, "a", "no", encode_record(record(State.CANCELLED)), 60_000)
    assert (await waiter).state is State.CANCELLED


async def test_waiting_ends(broker: Broker, results: Results) -> None:
    await broker.add(QUEUE, [job("a")])
    with pytest.raises(ResultTimeout, match=r"within 0\.01 s"):
        await results.wait(QUEUE, "a", 0.01, known=True)
    with pytest.raises(JobNotFound):
        await results.wait(QUEUE, "never", 5, known=False)
    with pytest.raises(ResultExpired):
        await results.wait(QUEUE, "never", 5, known=True)


async def test_a_record_that_cannot_be_read(broker: Broker, results: Results, raw: redis.Redis) -> None:
    raw.set(broker.keys(QUEUE).records + "a", b"\xc1", px=60_000)
    with pytest.raises(BrokerError, match="cannot be read"):
        await results.wait(QUEUE, "a", 5, known=True)


async def test_a_lost_message_is_made_up_for(
    broker: Broker, results: Results, worker: Worker, look: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.broker.results._REREAD", 0.1)
    await broker.add(QUEUE, [job("a")])
    waiter = waiting(results, "a")
    await registered(look, 1)
    look.client.hdel(look.keys.side, "w:a")
    await worker.settle(await worker.one(), done())
    assert await waiter == record()


async def test_closing_tells_those_who_wait(broker: Broker, look: Server) -> None:
    results = Results(broker)
    await broker.add(QUEUE, [job("a")])
    waiter = waiting(results, "a", None)
    await registered(look, 1)
    await results.close()
    with pytest.raises(BrokerError, match="closed"):
        await waiter


async def test_a_thousand_waiters_share_one_subscription(
    broker: Broker, results: Results, worker: Worker, look: Server, place: Place
) -> None:
    def subscriptions() -> int:
        return sum(len(node.client_list(_type="pubsub")) for node in place.masters)

    before = subscriptions()
    for half in range(2):
        await broker.add(QUEUE, [job(f"{half}-{n}") for n in range(500)])
    waiters = [waiting(results, f"{half}-{n}") for half in range(2) for n in range(500)]
    await registered(look, 1000)
    assert subscriptions() == before + 1
    while taken := await worker.take(500):
        await worker.turn([(each, done()) for each in taken])
    assert await asyncio.gather(*waiters) == [record()] * 1000
    look.assert_clean()


# ---- the inspector ----------------------------------------------------------------------------------------------


async def test_inspector(broker: Broker, worker: Worker, look: Server) -> None:
    inspector = Inspector(broker)
    empty = await inspector.queue(QUEUE)
    assert (empty.queued, empty.running, empty.scheduled, empty.dead, empty.oldest) == (0, 0, 0, 0, 0.0)
    await broker.add(QUEUE, [job(priority=5), job(), job(), job(delay=60_000)])
    await worker.one()
    info = WorkerInfo("w1", "host", 7, "1", [QUEUE], 10, ["task"], 5)
    with_renewer = broker.renewer()
    with_renewer.renew(QUEUE, "w1", [], msgspec.msgpack.encode(info), 30_000)
    full = await inspector.queue(QUEUE)
    assert (full.queued, full.running, full.scheduled, full.by_priority) == (2, 1, 1, {0: 2})
    assert (full.workers, await inspector.workers(QUEUE)) == (1, [info])
    assert full.oldest < 60
    with_renewer.close()
    seconds, _ = look.client.time()
    broker.now = lambda: (seconds + 3600) * 1000
    later = await inspector.queue(QUEUE)
    assert later.workers == 0
    assert 3500 < later.oldest < 3700


# ---- durability -------------------------------------------------------------------------------------------------


async def test_without_enough_replicas_the_job_is_there_all_the_same(brokers: Brokers) -> None:
    broker = await brokers(durability_timeout=0.05)
    with pytest.raises(NotDurable, match=r"[01] of 9 replicas") as caught:
        await broker.add(QUEUE, [job("a")], durability="replicas:9")
    assert caught.value.job_id == "a"
    assert (await broker.find(QUEUE, "a")).where == "stream"


async def test_fsync_without_a_file_is_not_durable(brokers: Brokers) -> None:
    broker = await brokers(durability_timeout=0.05, durability="fsync")
    with pytest.raises(NotDurable, match=r"WAITAOF needs|not written it") as caught:
        await broker.add(QUEUE, [job("a")])
    assert caught.value.job_id == "a"
    await broker.add(QUEUE, [job("b")], durability="memory")


async def test_fsync(brokers: Brokers, tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path, binary=find_server()) as server:
        broker = await brokers(server.url, durability="fsync")
        if broker.facts is None or not broker.facts.waitaof:
            pytest.skip("the embedded server has no WAITAOF")
        assert [each.status for each in await broker.add(QUEUE, [job("a")])] == ["new"]
        await broker.close()
