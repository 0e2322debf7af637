"""Pausing a queue and purging it, script by script; each guard with its control."""

from __future__ import annotations

import asyncio

import pytest
import redis

from streamq.broker.archive import Kept
from streamq.broker.broker import Broker
from streamq.broker.inspector import Inspector
from streamq.broker.results import Results
from streamq.broker.values import Pause
from streamq.broker.wire import encode_record
from streamq.core.job import State
from tests.broker.byhand import NOW, QUEUE, Server, Worker, done, job, record
from tests.broker.test_guards import GUARDED, Cut, cut

__all__ = ["cut"]  # a fixture

END = encode_record(record(State.CANCELLED))


def ends(*names: str) -> list[Kept]:
    return [Kept(name, 60_000, END) for name in names]


# ---- pause ----------------------------------------------------------------------------------------------------


async def test_a_paused_queue_says_since_when_and_why(broker: Broker) -> None:
    broker.now = lambda: NOW
    assert await broker.paused(QUEUE) is None
    assert await broker.pause(QUEUE, "deploy") == Pause(NOW, "deploy")
    broker.now = lambda: NOW + 5_000
    assert await broker.pause(QUEUE) == Pause(NOW, "")  # once more: it has been since then
    assert await broker.paused(QUEUE) == Pause(NOW, "deploy")
    await broker.pause(QUEUE, "a longer deploy")
    assert (await Inspector(broker).queue(QUEUE)).paused == Pause(NOW, "a longer deploy")
    assert await broker.resume(QUEUE) is True
    assert await broker.resume(QUEUE) is False
    assert (await Inspector(broker).queue(QUEUE)).paused is None
    assert await broker.queues() == [QUEUE]


@GUARDED
async def test_no_turn_fetches_from_a_paused_queue(broker: Broker, worker: Worker, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("turn", ("want > 0 and waits == 0 and fetch()", "want > 0 and fetch()"))
    await broker.add(QUEUE, [job("a"), job("b")])
    held = await worker.one()
    await broker.pause(QUEUE)
    turn = await worker.turn([(held, done())], want=5)
    assert (turn.replies, turn.paused) == (["ok"], True)  # what runs ends as ever
    assert [each.job_id for each in turn.deliveries] == ([] if guarded else ["b"])
    await broker.resume(QUEUE)
    turn = await worker.turn(want=5)
    assert not turn.paused
    assert [each.job_id for each in turn.deliveries] == (["b"] if guarded else [])


@GUARDED
async def test_no_sweep_takes_from_a_paused_queue(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("reclaim", ("if redis.call('EXISTS', paused) == 1 then return { taken, cursors } end\n", ""))
    await broker.add(QUEUE, [job("given back"), job("of the dead")])
    back, dead = await worker.take()
    await worker.release(back)
    look.expire(dead)
    await broker.pause(QUEUE)
    assert len(await other.sweep()) == (0 if guarded else 2)
    await broker.resume(QUEUE)
    assert len(await other.sweep()) == (2 if guarded else 0)


async def test_the_bell_tells_of_both(broker: Broker, raw: redis.Redis) -> None:
    with raw.pubsub() as bell:  # type: ignore[no-untyped-call]
        bell.subscribe(broker.bell(QUEUE))
        await broker.pause(QUEUE)
        await broker.resume(QUEUE)
        await broker.resume(QUEUE)  # a worker may have missed it
        heard = [bell.get_message(timeout=5.0) for _ in range(4)]
    assert [each["data"] for each in heard[1:] if each] == [b"paused", b"resumed", b"resumed"]


async def test_what_was_given_back_counts_as_queued(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a"), job("b"), job("c")])
    first, _ = await worker.take(2)
    await worker.release(first)
    info = await Inspector(broker).queue(QUEUE)
    assert (info.queued, info.running, info.by_priority) == (2, 1, {0: 2})


# ---- purge ----------------------------------------------------------------------------------------------------


@GUARDED
async def test_purge_cancels_what_waits_and_nothing_else(
    broker: Broker, worker: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("purge", ("held[1][2] ~= 'nobody' then", "false then"))
    await broker.add(QUEUE, [job("running"), job("given back")])
    running, back = await worker.take()
    await worker.release(back)
    await broker.add(QUEUE, [job("queued", priority=9), job("later", delay=60_000)])
    names = ["running", "given back", "queued", "later", "never there"]
    assert await broker.purge(QUEUE, "purged", ends(*names)) == (3 if guarded else 4)
    if guarded:
        assert list(look.unfinished()) == ["running"]
        assert await worker.settle(running, done()) == "ok"
    look.assert_clean()
    assert all(look.record(name) for name in names[:4])
    assert look.record("never there") is None


async def test_a_purged_job_is_told_of_and_its_key_ends(broker: Broker, look: Server) -> None:
    await broker.add(QUEUE, [job("a", key="k", fingerprint="f"), job("b")])
    results = Results(broker)
    waiting = [asyncio.ensure_future(results.wait(QUEUE, name, 5.0, known=True)) for name in ("a", "b")]
    async with asyncio.timeout(5):
        while look.client.hlen(look.keys.side) < 3:  # the key's note and two inboxes
            await asyncio.sleep(0.002)
    assert await broker.purge(QUEUE, "purged", ends("a", "b")) == 2
    assert [each.state for each in await asyncio.gather(*waiting)] == [State.CANCELLED, State.CANCELLED]
    await results.close()
    assert look.client.hget(look.keys.keys + "k", "state") == b"CANCELLED"
    assert look.client.ttl(look.keys.keys + "k") > 0


@pytest.mark.parametrize("name", ["jobs", "side", "due", "body"])
async def test_purge_writes_nothing_beside_a_foreign_key(broker: Broker, look: Server, name: str) -> None:
    key = str(getattr(look.keys, name))
    await broker.add(QUEUE, [job("a")])
    look.client.delete(key)
    look.client.set(key, "foreign", px=60_000)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await broker.purge(QUEUE, "purged", ends("a"))
    assert look.lengths() == 1
    look.client.delete(key, look.keys.jobs)
