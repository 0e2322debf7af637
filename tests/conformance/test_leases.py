"""Blocking, leases, the sweep, goodbye: what happens to jobs whose worker does not settle them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from streamq.broker.broker import Broker
from streamq.broker.renewer import Held, Renewer
from streamq.core.job import Delivery
from tests.broker.byhand import LEASE, QUEUE, Server, Worker, done, job


def held(*deliveries: Delivery) -> list[Held]:
    return [Held(each.priority, each.entry.decode(), each.count, each.job_id) for each in deliveries]


@pytest.fixture
def renewer(broker: Broker) -> Iterator[Renewer]:
    renewer = broker.renewer()
    yield renewer
    renewer.close()
    renewer.close()


# ---- block -------------------------------------------------------------------------------------------------


async def test_block_hands_out_one_of_each_priority(broker: Broker) -> None:
    await broker.prepare(QUEUE)
    await broker.prepare(QUEUE)
    line = broker.connections.line()
    assert await broker.block(line, QUEUE, "w1", 1) == []
    reading = asyncio.create_task(broker.block(line, QUEUE, "w1", 5_000))
    await broker.add(QUEUE, [job("low"), job("high", priority=9)])
    got = await reading
    rest = await broker.block(line, QUEUE, "w1", 1)
    assert sorted((each.job_id, each.priority, each.count) for each in got + rest) == [("high", 9, 1), ("low", 0, 1)]
    await line.close()


async def test_block_without_a_group_says_so(broker: Broker) -> None:
    line = broker.connections.line()
    with pytest.raises(ResponseError, match=r"NOGROUP|No such key|no such key"):
        await broker.block(line, QUEUE, "w1", 1)
    await broker.prepare(QUEUE)
    assert await broker.block(line, QUEUE, "w1", 1) == []
    await line.close()


# ---- renew -------------------------------------------------------------------------------------------------


async def test_renew(broker: Broker, worker: Worker, other: Worker, look: Server, renewer: Renewer) -> None:
    await broker.add(QUEUE, [job("mine"), job("stolen", priority=3), job("settled"), job("again")])
    stolen, mine, settled, again = await worker.take()
    for each in (mine, stolen, again):
        look.expire(each)
    assert [each.job_id for each in await other.sweep(1)] == ["stolen"]
    await worker.settle(settled, done())
    stale = Delivery(QUEUE, 0, again.entry, "again", again.body, count=7)
    renewal = renewer.renew(QUEUE, "w1", held(mine, stolen, settled, stale), b"info", LEASE)
    assert (sorted(renewal.lost), renewal.cancelled) == (["again", "settled", "stolen"], {})
    found = await broker.find(QUEUE, "mine")
    assert found.idle < LEASE
    assert (found.delivery, found.consumer) == (1, "w1")  # a renewal is no delivery
    assert (await broker.find(QUEUE, "again")).idle > LEASE  # not held by that number: it must run out
    assert (await broker.find(QUEUE, "stolen")).consumer == "w2"


async def test_renew_tells_what_is_cancelled(broker: Broker, worker: Worker, renewer: Renewer) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    taken = await worker.take()
    assert await broker.cancel(QUEUE, "a", "enough", b"", 0) == "cancelling"
    renewal = renewer.renew(QUEUE, "w1", held(*taken), b"info", LEASE)
    assert (renewal.lost, renewal.cancelled) == ([], {"a": "enough"})


async def test_renew_nothing_says_that_the_worker_lives(broker: Broker, look: Server, renewer: Renewer) -> None:
    look.client.script_flush()
    broker.now = lambda: 1_000
    assert renewer.renew(QUEUE, "w1", [], b"info", LEASE) == ([], {})
    look.client.zscore(look.keys.workers, "w1")
    assert look.client.hget(look.keys.worker_info, "w1") == b"info"


# ---- the sweep -----------------------------------------------------------------------------------------------


async def test_the_sweep_takes_only_what_ran_out(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    assert await other.sweep() == []
    await broker.add(QUEUE, [job("dead", priority=1), job("alive")])
    dead, _ = await worker.take()
    look.expire(dead)
    (taken,) = await other.sweep()
    assert (taken.job_id, taken.priority, taken.count, taken.crashes) == ("dead", 1, 2, 1)
    assert taken.body == dead.body
    assert await other.sweep() == []


async def test_the_sweep_keeps_its_cursor(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job(str(n)) for n in range(10)])
    for each in await worker.take():
        look.expire(each)
    swept = [each.job_id for _ in range(4) for each in await other.sweep(3)]
    assert swept == [str(n) for n in range(10)]
    assert await other.sweep(0) == []


async def test_between_looks_the_sweep_goes_where_something_was_pending(
    broker: Broker, worker: Worker, other: Worker, look: Server
) -> None:
    async def sweep(everywhere: bool, *, quiet: bool = False) -> tuple[list[str], bool]:
        taken, pending = await broker.reclaim(
            QUEUE, "w2", lease_ms=LEASE, want=9, suspects=0, quiet=quiet, everywhere=everywhere
        )
        other.held += taken
        return [each.job_id for each in taken], pending

    assert await sweep(True) == ([], False)
    await broker.add(QUEUE, [job("low")])
    assert await sweep(True) == ([], False)  # without a group
    (low,) = await worker.take()
    assert await sweep(False) == ([], False)
    assert await sweep(True) == ([], True)
    await broker.add(QUEUE, [job("high", priority=9), job("waits", priority=5)])
    (high,) = await worker.take(1)
    for each in (low, high):
        look.expire(each)
    assert await sweep(False) == (["low"], True)
    await worker.sweep(0)  # of another consumer: everywhere, and no matter to this one
    assert await sweep(False) == ([], True)
    assert await sweep(True, quiet=True) == ([], True)
    assert await sweep(False) == (["high"], True)
    for each in list(other.held):
        await other.settle(each, done())
    assert await sweep(False) == ([], False)
    assert await sweep(True) == ([], False)
    assert [each.job_id for each in await worker.take()] == ["waits"]


async def test_a_quiet_sweep_takes_only_what_was_given_back(
    broker: Broker, worker: Worker, other: Worker, look: Server
) -> None:
    await broker.add(QUEUE, [job("given"), job("expired")])
    given, expired = await worker.take()
    await worker.release(given)
    look.expire(expired)
    how = {"lease_ms": LEASE, "want": 9, "suspects": 0}
    taken, pending = await broker.reclaim(QUEUE, "w2", **how, quiet=True)
    assert ([each.job_id for each in taken], pending) == (["given"], True)
    taken, _ = await broker.reclaim(QUEUE, "w2", **how)
    assert [each.job_id for each in taken] == ["expired"]


async def crash(worker: Worker, look: Server, *, times: int) -> None:
    """All that the worker holds was delivered that often, and nobody reported."""
    for n in range(times):
        for each in worker.held:
            look.expire(each)
        worker.held.clear()
        if n < times - 1:
            await worker.sweep(want=100, suspects=100)


async def test_suspects_run_one_at_a_time(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("s1"), job("s2"), job("s3")])
    await worker.take()
    await crash(worker, look, times=2)
    await broker.add(QUEUE, [job("fine")])
    await worker.take()
    await crash(worker, look, times=1)
    none = await other.sweep(suspects=0)
    assert [each.job_id for each in none] == ["fine"]
    (one,) = await other.sweep(suspects=1)
    assert (one.job_id, one.crashes) == ("s1", 2)
    for name in ("s2", "s3"):
        found = await broker.find(QUEUE, name)
        assert (found.where, found.delivery) == ("stream", 2)  # handed back, uncounted
    assert sorted(each.job_id for each in await other.sweep(suspects=5)) == ["s2", "s3"]


async def test_many_suspects_hide_nobody(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job(f"s{n}") for n in range(9)])
    await worker.take()
    await crash(worker, look, times=2)
    await broker.add(QUEUE, [job("fine")])
    await worker.take()
    await crash(worker, look, times=1)
    swept = [each.job_id for _ in range(5) for each in await other.sweep(want=2, suspects=0)]
    assert "fine" in swept


async def test_what_is_forgiven_is_no_crash(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    for n in range(1, 5):
        assert await worker.release(delivery) == "ok"
        (delivery,) = await worker.sweep(suspects=0)
        assert (delivery.count, delivery.forgiven, delivery.crashes) == (n + 1, n, 0)
    await worker.release(delivery, forgive=False)
    (delivery,) = await worker.sweep(suspects=0)
    assert delivery.crashes == 1
    await worker.settle(delivery, done())
    look.assert_clean()


async def test_the_sweep_without_a_group(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    assert await worker.sweep() == []


# ---- goodbye -------------------------------------------------------------------------------------------------


def consumers(look: Server, priority: int = 0) -> set[bytes]:
    return {each["name"] for each in look.client.xinfo_consumers(look.keys.stream(priority), "w")}


async def test_leave(broker: Broker, worker: Worker, other: Worker, look: Server, renewer: Renewer) -> None:
    await broker.add(QUEUE, [job("a"), job("b", priority=4)])
    await worker.take()
    renewer.renew(QUEUE, "w1", [], b"info", LEASE)
    assert await broker.leave(QUEUE, "w1") == 2
    assert b"w1" not in consumers(look)
    assert not look.client.exists(look.keys.workers, look.keys.worker_info)
    taken = await other.sweep(suspects=0)
    assert [(each.job_id, each.crashes) for each in taken] == [("b", 0), ("a", 0)]
    assert await broker.leave(QUEUE, "w1") == 0
    assert await broker.leave(QUEUE, "never came") == 0


async def test_leave_while_something_runs(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    assert await broker.leave(QUEUE, "w1", hand_back=False) == 1
    assert await broker.tidy(QUEUE) == 0
    assert b"w1" in consumers(look)
    assert await worker.settle(delivery, done()) == "ok"
    assert await broker.tidy(QUEUE) == 1
    assert b"w1" not in consumers(look)
    assert not look.client.exists(look.keys.workers)


async def test_tidy_spares_the_living(broker: Broker, worker: Worker, look: Server, renewer: Renewer) -> None:
    broker.now = lambda: 1_000_000
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    renewer.renew(QUEUE, "w1", held(delivery), b"info", LEASE)
    await worker.settle(delivery, done())
    assert await broker.tidy(QUEUE) == 0
    broker.now = lambda: 1_000_000 + 2 * LEASE
    assert await broker.tidy(QUEUE) == 1
    assert not look.client.exists(look.keys.workers, look.keys.worker_info)


async def test_tidy_removes_nobody_once_nothing_is_released(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    await worker.release(await worker.one())
    await broker.tidy(QUEUE)
    assert b"nobody" in consumers(look)
    (delivery,) = await worker.sweep()
    await worker.settle(delivery, done())
    await broker.tidy(QUEUE)
    assert b"nobody" not in consumers(look)
    look.assert_clean()
