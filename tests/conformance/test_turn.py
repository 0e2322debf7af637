"""Turns: handing out, settling in every way, and what a worker hears that may not settle any more."""

from __future__ import annotations

import pytest

from streamq.broker.broker import Broker
from streamq.core.job import Delivery, Reason, State
from streamq.core.outcome import Drop, Release
from tests.broker.byhand import QUEUE, Server, Worker, again, buried, done, job, record


async def test_want_is_respected(broker: Broker, worker: Worker, other: Worker) -> None:
    await broker.add(QUEUE, [job(str(n), priority=n % 2) for n in range(10)])
    assert await worker.take(0) == []
    assert len(await worker.take(7)) == 7
    assert len(await other.take(7)) == 3
    assert await worker.take(7) == []


async def test_settling_and_fetching_are_one_round_trip(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    first = await worker.one()
    turn = await worker.turn([(first, done())], 1)
    assert (turn.replies, [each.job_id for each in turn.deliveries]) == (["ok"], ["b"])
    assert look.record("a") == record()
    assert list(look.unfinished()) == ["b"]


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILURE, State.CANCELLED, State.EXPIRED])
async def test_complete(broker: Broker, worker: Worker, look: Server, state: State) -> None:
    await broker.add(QUEUE, [job("a")])
    await broker.set_progress(QUEUE, "a", b"\x91\x01")
    assert await worker.settle(await worker.one(), done(state)) == "ok"
    kept = look.record("a")
    assert kept is not None
    assert kept.state is state
    assert 0 < look.client.pttl(look.keys.records + "a") <= 60_000
    look.assert_clean()


async def test_no_ttl_keeps_no_record(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    await worker.settle(await worker.one(), done(ttl=0))
    assert look.record("a") is None
    look.assert_clean()


@pytest.mark.parametrize(
    ("state", "where"), [(State.RETRY, "retry"), (State.SCHEDULED, "due"), (State.PENDING, "parked")]
)
async def test_reschedule(broker: Broker, worker: Worker, look: Server, state: State, where: str) -> None:
    await broker.add(QUEUE, [job("a", priority=6)])
    delivery = await worker.one()
    assert await worker.settle(delivery, again(delivery, 60_000, state)) == "ok"
    found = await broker.find(QUEUE, "a")
    assert (found.where, found.priority, found.body) == (where, 6, delivery.body)
    assert look.lengths() == 0


async def test_run_again_at_once_begins_a_new_count(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a", priority=6)])
    await worker.release(await worker.one())
    (delivery,) = await worker.sweep()
    assert (delivery.count, delivery.forgiven) == (2, 1)
    await worker.settle(delivery, again(delivery))
    fresh = await worker.one()
    assert (fresh.job_id, fresh.priority, fresh.count, fresh.forgiven) == ("a", 6, 1, 0)
    assert not look.client.exists(look.keys.side)


async def test_bury(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a", 1, priority=2)])
    delivery = await worker.one()
    assert await worker.settle(delivery, buried(delivery, Reason.EXHAUSTED)) == "ok"
    letter = await broker.dead_one(QUEUE, "a")
    assert letter is not None
    assert (letter.job_id, letter.reason, letter.priority) == ("a", Reason.EXHAUSTED, 2)
    assert (letter.body, letter.error) == (delivery.body, "builtins.ValueError: no")
    kept = look.record("a")
    assert kept is not None
    assert kept.state is State.FAILURE
    look.assert_clean()


async def test_foreign_entries_are_delivered_under_a_name_of_their_own(
    broker: Broker, worker: Worker, look: Server
) -> None:
    stream = look.keys.stream(0)
    foreign = [{"x": "y"}, {"i": b"\xff\xfe", "j": "b"}, {"j": "b", "i": "swapped"}, {"i": "a", "j": "b", "k": "c"}]
    entries = [look.client.xadd(stream, fields) for fields in foreign]
    deliveries = await worker.take()
    assert [each.job_id for each in deliveries] == [f"unreadable-0-{entry.decode()}" for entry in entries]
    for delivery in deliveries:
        assert await worker.settle(delivery, buried(delivery, Reason.UNREADABLE)) == "ok"
    assert {each.job_id for each in await broker.dead(QUEUE)} == {each.job_id for each in deliveries}
    look.assert_clean()


async def test_a_released_foreign_entry_leaves_no_note(broker: Broker, worker: Worker, look: Server) -> None:
    look.client.xadd(look.keys.stream(0), {"x": "y"})
    await worker.one()
    assert await broker.leave(QUEUE, worker.name) == 1
    (delivery,) = await worker.sweep()
    assert await worker.settle(delivery, buried(delivery, Reason.UNREADABLE)) == "ok"
    look.assert_clean()


async def test_a_drop_is_never_sent(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job()])
    delivery = await worker.one()
    with pytest.raises(ValueError, match="Drop"):
        await worker.settle(delivery, Drop())
    assert await worker.settle(delivery, done()) == "ok"


# ---- the four replies ----------------------------------------------------------------------------------------


async def test_the_same_request_again_is_done_already(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a"), job("b"), job("c")])
    a, b, c = await worker.take()
    look.expire(b)
    await Worker(broker, "thief").sweep(1)
    pairs = [(a, done()), (b, done()), (c, buried(c))]
    assert (await worker.turn(pairs)).replies == ["ok", "fenced", "ok"]
    assert (await worker.turn(pairs, request=worker.request)).replies == ["dup", "fenced", "dup"]
    assert len(await broker.dead(QUEUE)) == 1


async def test_two_flights_count_their_requests_apart(broker: Broker, worker: Worker, look: Server) -> None:
    """Two turns overlap, both replies are lost, both are sent again, in the other order."""
    await broker.add(QUEUE, [job("a"), job("b"), job("c")])
    a, b, c = await worker.take()

    async def turn(flight: int, request: int, delivery: Delivery) -> list[str]:
        return (await broker.turn(QUEUE, worker.name, [(delivery, done())], 0, request=request, flight=flight)).replies

    assert await turn(0, 7, a) == ["ok"]
    assert await turn(1, 2, b) == ["ok"]
    assert await turn(1, 3, c) == ["ok"]
    assert await turn(0, 7, a) == ["dup"]
    assert await turn(1, 3, c) == ["dup"]
    assert await turn(1, 2, b) == ["gone"]  # an older copy: whoever sent it has had its answer
    await broker.leave(QUEUE, worker.name)
    assert not look.client.keys(look.keys.ring(worker.name) + "*")


async def test_a_late_copy_of_an_older_request_changes_nothing(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a"), job("b"), job("c")])
    a, b = await worker.take(2)
    assert (await worker.turn([(a, done())], request=5)).replies == ["ok"]
    assert (await worker.turn([(b, done())], request=6)).replies == ["ok"]
    stale = await worker.turn([(a, done())], 1, request=5)
    assert (stale.replies, stale.deliveries) == (["gone"], [])
    assert (await worker.turn([(b, done())], request=6)).replies == ["dup"]
    assert list(look.unfinished()) == ["c"]
    assert [each.job_id for each in await worker.take()] == ["c"]


async def test_what_is_settled_is_gone(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    assert await worker.settle(delivery, done()) == "ok"
    for late in (done(), buried(delivery), again(delivery), Release()):
        assert await worker.settle(delivery, late) == "gone"
    assert await broker.dead(QUEUE) == []


async def test_the_same_entry_twice_in_a_batch_is_settled_once(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    a, b = await worker.take()
    pairs = [(a, again(a)), (b, done()), (a, again(a))]
    assert (await worker.turn(pairs)).replies == ["ok", "ok", "fenced"]
    assert look.lengths() == 1


async def test_each_way_to_settle_late_is_fenced(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    late = await worker.one()
    look.expire(late)
    (current,) = await other.sweep()
    for settlement in (done(), buried(late), again(late, 5), again(late), Release()):
        assert await worker.settle(late, settlement) == "fenced"
    assert look.record("a") is None
    assert await other.settle(current, done()) == "ok"
    look.assert_clean()


async def test_the_same_worker_is_fenced_by_the_count(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    late = await worker.one()
    look.expire(late)
    (current,) = await worker.sweep()
    assert (current.count, await worker.settle(late, done())) == (2, "fenced")
    assert await worker.settle(current, done()) == "ok"


async def test_many_at_once_with_gaps_between(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    for _ in range(2):
        await broker.add(QUEUE, [job() for _ in range(300)])
    mine: list[Delivery] = []
    for _ in range(300):  # in turns, so that the span of the batch holds twice as many entries
        mine += await worker.take(1)
        await other.take(1)
    assert set((await worker.turn([(each, done()) for each in mine])).replies) == {"ok"}
    assert len(look.unfinished()) == 300


async def test_more_than_lua_can_unpack(broker: Broker, worker: Worker, look: Server) -> None:
    for _ in range(18):
        await broker.add(QUEUE, [job() for _ in range(500)])
    taken = await worker.take(9_000)
    assert set((await worker.turn([(each, done(ttl=0)) for each in taken])).replies) == {"ok"}
    look.assert_clean()


# ---- a changed server --------------------------------------------------------------------------------------


async def test_a_lost_group_is_made_again(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    held = await worker.one()
    look.client.execute_command("XGROUP", "DESTROY", look.keys.stream(0), "w")
    assert await worker.settle(held, done()) == "gone"
    fresh = await other.one()
    assert (fresh.job_id, await worker.settle(held, done())) == ("a", "fenced")
    assert await other.settle(fresh, done()) == "ok"
    look.assert_clean()


async def test_after_the_keys_are_gone_it_goes_on(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    held = await worker.one()
    for key in list(look.client.scan_iter(f"*{broker.options.namespace}*")):
        look.client.delete(key)
    assert await worker.settle(held, done()) == "gone"
    await broker.add(QUEUE, [job("b")])
    assert (await worker.one()).job_id == "b"
    await broker.prepare(QUEUE)
    assert await broker.queues() == [QUEUE]


@pytest.mark.parametrize("which", ["jobs", "side", "due", "body", "dead", "dead_body", "ring"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_settled(
    broker: Broker, worker: Worker, look: Server, which: str
) -> None:
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    name = look.keys.ring(worker.name) if which == "ring" else getattr(look.keys, which)
    look.client.delete(name)
    look.client.lpush(name, "foreign")
    for settlement in (done(), buried(delivery), again(delivery, 500), again(delivery)):
        with pytest.raises(Exception, match=r"WRONGTYPE|wrong kind"):
            await worker.settle(delivery, settlement)
        assert look.lengths() == 1
        assert look.record("a") is None
    look.client.delete(name)
    assert await worker.settle(delivery, done()) == "ok"
    look.assert_clean()


async def test_a_foreign_idempotency_key_stops_no_batch(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a", key="k1", fingerprint="f"), job("b")])
    pairs = [(each, done()) for each in await worker.take()]
    look.client.set(look.keys.keys + "k1", "foreign")
    assert (await worker.turn(pairs)).replies == ["ok", "ok"]
    look.assert_clean()
