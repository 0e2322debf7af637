"""One job looked at and cancelled in each of its states; progress; dead letters."""

from __future__ import annotations

import pytest

from streamq.broker.broker import Broker
from streamq.broker.wire import encode_progress, encode_record
from streamq.core.job import Progress, Reason, State
from streamq.errors import BrokerError
from tests.broker.byhand import QUEUE, Server, Worker, again, buried, done, job, record

CANCELLED = encode_record(record(State.CANCELLED))


async def cancel(broker: Broker, job_id: str = "a") -> str:
    return await broker.cancel(QUEUE, job_id, "changed my mind", CANCELLED, 60_000)


# ---- find ---------------------------------------------------------------------------------------------------


async def test_find_what_was_never_there(broker: Broker) -> None:
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.record, found.body, found.progress, found.cancelling) == ("gone", None, None, None, None)


async def test_find_through_a_life(broker: Broker, worker: Worker, look: Server) -> None:
    sent = job("a", priority=7)
    await broker.add(QUEUE, [sent])
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.priority, found.body, found.consumer) == ("stream", 7, sent.body, "")
    delivery = await worker.one()
    look.expire(delivery)
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.priority, found.consumer, found.delivery) == ("running", 7, "w1", 1)
    assert found.idle > 30_000
    assert found.body == sent.body
    await worker.release(delivery)
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.consumer) == ("stream", "nobody")
    (delivery,) = await worker.sweep()
    await worker.settle(delivery, done())
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.record) == ("gone", record())


async def test_find_what_waits(broker: Broker, worker: Worker) -> None:
    broker.now = lambda: 5_000
    await broker.add(QUEUE, [job("a", priority=3, delay=1_000)])
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.priority, found.due) == ("due", 3, 6_000)


async def test_progress(broker: Broker, worker: Worker, look: Server) -> None:
    note = Progress(3, 10, "rows", 5)
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    await broker.set_progress(QUEUE, "a", encode_progress(note))
    assert (await broker.find(QUEUE, "a")).progress == note
    await worker.settle(delivery, done())
    await broker.set_progress(QUEUE, "a", encode_progress(note))  # late: it is not kept
    look.assert_clean()


async def test_store_writes_a_record_beside_a_settlement(broker: Broker, look: Server) -> None:
    await broker.store(QUEUE, "a", encode_record(record()), 60_000)
    await broker.store(QUEUE, "b", encode_record(record()), 0)
    assert look.record("a") == record()
    assert look.record("b") is None


# ---- cancel ---------------------------------------------------------------------------------------------------


async def test_cancel_what_is_not_there(broker: Broker) -> None:
    assert await cancel(broker) == "missing"


async def test_cancel_a_queued_job(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a", key="k", fingerprint="f")])
    assert await cancel(broker) == "cancelled"
    kept = look.record("a")
    assert kept is not None
    assert kept.state is State.CANCELLED
    assert await cancel(broker) == "finished"
    assert await worker.take() == []
    look.assert_clean()


async def test_cancel_a_job_before_any_group_is_made(broker: Broker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    assert not look.client.xinfo_groups(look.keys.stream(0))
    assert await cancel(broker) == "cancelled"
    look.assert_clean()


@pytest.mark.parametrize("state", [State.RETRY, State.SCHEDULED, State.PENDING])
async def test_cancel_a_waiting_job(broker: Broker, worker: Worker, look: Server, state: State) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    await worker.settle(delivery, again(delivery, 60_000, state))
    assert await cancel(broker) == "cancelled"
    look.assert_clean()


async def test_cancel_a_released_job(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    await worker.release(await worker.one())
    assert await cancel(broker) == "cancelled"
    assert await worker.sweep() == []
    look.assert_clean()


async def test_cancel_a_running_job(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    with look.client.pubsub(ignore_subscribe_messages=True) as bell:
        bell.subscribe(broker.bell(QUEUE))
        bell.get_message(timeout=5.0)
        assert await cancel(broker) == "cancelling"
        message = None
        while message is None:
            message = bell.get_message(timeout=5.0)
    assert message["data"] == b"cancel a"
    assert (await broker.find(QUEUE, "a")).cancelling == "changed my mind"
    assert await worker.settle(delivery, done(State.CANCELLED)) == "ok"
    assert await cancel(broker) == "finished"
    look.assert_clean()


@pytest.mark.parametrize("which", ["jobs", "side", "due", "body", "stream"])
async def test_a_key_of_the_wrong_type_stops_a_cancel_before_it_writes(
    broker: Broker, worker: Worker, look: Server, which: str
) -> None:
    await broker.add(QUEUE, [job("a")])
    name = look.keys.stream(0) if which == "stream" else getattr(look.keys, which)
    before = look.client.dump(name) if which in ("jobs", "stream") else None
    look.client.delete(name)
    look.client.lpush(name, "foreign")
    with pytest.raises(BrokerError, match=r"WRONGTYPE|wrong kind"):
        await cancel(broker)
    assert look.record("a") is None
    look.client.delete(name)
    if before is not None:
        look.client.restore(name, 0, before)
    assert await cancel(broker) == "cancelled"
    look.assert_clean()


# ---- dead letters ---------------------------------------------------------------------------------------------


async def bury(broker: Broker, worker: Worker, *names: str) -> None:
    for name in names:
        await broker.add(QUEUE, [job(name, priority=2)])
        delivery = await worker.one()
        await worker.settle(delivery, buried(delivery))


async def test_dead_letters_newest_first(broker: Broker, worker: Worker) -> None:
    assert await broker.dead(QUEUE) == []
    assert await broker.dead_one(QUEUE, "a") is None
    for at, name in enumerate("abc"):
        now = 1_000 + at
        broker.now = lambda now=now: now  # type: ignore[misc]
        await bury(broker, worker, name)
    assert [each.job_id for each in await broker.dead(QUEUE)] == ["c", "b", "a"]
    assert [each.job_id for each in await broker.dead(QUEUE, offset=1, limit=1)] == ["b"]


async def test_the_dead_letter_of_an_unreadable_entry_is_short(broker: Broker, worker: Worker, look: Server) -> None:
    look.client.xadd(look.keys.stream(0), {"i": "a", "j": b"\xc1" * 9_000})
    delivery = await worker.one()
    await worker.settle(delivery, buried(delivery, Reason.UNREADABLE))
    letter = await broker.dead_one(QUEUE, "a")
    assert letter is not None
    assert letter.body == b"\xc1" * 4096


async def test_revive(broker: Broker, worker: Worker, look: Server) -> None:
    await bury(broker, worker, "a", "b")
    back = [job("a", priority=5), job("never")]
    assert await broker.revive(QUEUE, back) == 1
    assert await broker.revive(QUEUE, back) == 0
    assert await broker.revive(QUEUE, []) == 0
    assert look.record("a") is None  # whoever waits for it waits for the new end
    assert [each.job_id for each in await broker.dead(QUEUE)] == ["b"]
    delivery = await worker.one()
    assert (delivery.job_id, delivery.priority, delivery.count) == ("a", 5, 1)
    await worker.settle(delivery, done())
    assert (await broker.find(QUEUE, "a")).record == record()
    look.assert_clean()


async def test_revive_with_a_wrong_key_writes_nothing(broker: Broker, worker: Worker, look: Server) -> None:
    await bury(broker, worker, "a")
    look.client.delete(look.keys.dead_body)
    look.client.lpush(look.keys.dead_body, "foreign")
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await broker.revive(QUEUE, [job("a")])
    look.assert_clean()


async def test_discard(broker: Broker, worker: Worker, look: Server) -> None:
    await bury(broker, worker, "a", "b")
    assert await broker.discard(QUEUE, []) == 0
    assert await broker.discard(QUEUE, ["a", "x"]) == 1
    assert await broker.discard(QUEUE, ["a"]) == 0
    assert [each.job_id for each in await broker.dead(QUEUE)] == ["b"]
    assert await broker.discard(QUEUE, [f"x{n}" for n in range(9_000)] + ["b"]) == 1
    assert not look.client.exists(look.keys.dead, look.keys.dead_body)
