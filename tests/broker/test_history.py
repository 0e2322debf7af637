"""The history of a queue: each kind of transition is told, once and in order, and none costs a job anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from streamq.broker import history
from streamq.broker.broker import Broker
from streamq.broker.history import BEGINNING, Feed, History, Transition, decode
from streamq.core.job import Reason, State
from streamq.core.outcome import Release, Settlement
from streamq.errors import BrokerError
from tests.broker.byhand import LEASE, NOW, QUEUE, Server, Worker, again, buried, done, job
from tests.broker.conftest import Brokers
from tests.worker.processes import Redis
from tests.worker.waits import until

Told = list[tuple[str, str, str, int]]


async def told(broker: Broker, job_id: str = "", queue: str = QUEUE) -> list[Transition]:
    found = [each async for each in History(broker).backward(queue, job_id=job_id)]
    return found[::-1]


def brief(transitions: list[Transition]) -> Told:
    return [(each.job_id, each.kind, each.worker, each.fence) for each in transitions]


async def live(worker: Worker, *job_ids: str) -> None:
    """These jobs are added, taken and done, in one turn each for all of them."""
    await worker.broker.add(QUEUE, [job(job_id) for job_id in job_ids])
    taken = await worker.take(len(job_ids))
    await worker.turn([(each, done()) for each in taken])


# ---- what is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settlement", "kind", "seconds", "detail"),
    [
        (done(), "succeeded", 0, ""),
        (done(State.CANCELLED), "cancelled", 0, ""),
        (done(State.EXPIRED), "expired", 0, ""),
        (done(State.STARTED), "acknowledged", 0, ""),
        ("bury", "failed", 0, ""),
        (State.RETRY, "retrying", 2.5, ""),
        (State.SCHEDULED, "snoozed", 2.5, ""),
        (State.PENDING, "parked", 2.5, ""),
        (Release(), "released", 0, "forgiven"),
        (Release(forgive=False), "released", 0, "counted"),
    ],
)
async def test_what_became_of_an_attempt(
    broker: Broker, worker: Worker, settlement: Settlement | State | str, kind: str, seconds: float, detail: str
) -> None:
    broker.now = lambda: NOW
    await broker.add(QUEUE, [job("a", priority=3)])
    delivery = await worker.one()
    match settlement:
        case State():
            await worker.settle(delivery, again(delivery, 2_500, settlement))
        case str():
            await worker.settle(delivery, buried(delivery, Reason.EXHAUSTED))
        case _:
            await worker.settle(delivery, settlement)
    assert await told(broker) == [
        Transition(at=NOW, queue=QUEUE, job_id="a", kind=history.TransitionKind.STARTED, worker="w1", fence=1),
        Transition(
            at=NOW, queue=QUEUE, job_id="a", kind=history.TransitionKind(kind), worker="w1", fence=1, seconds=seconds,
            detail=detail,
        ),
    ]  # fmt: skip


async def test_a_lost_lease_and_the_late_outcome(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job("a")])
    first = await worker.one()
    look.expire(first)
    (second,) = await other.sweep()
    assert await worker.settle(first, done()) == "fenced"
    assert await other.settle(second, done()) == "ok"
    assert await worker.settle(first, buried(first)) == "gone"
    found = await told(broker)
    assert brief(found) == [
        ("a", "started", "w1", 1),
        ("a", "taken-over", "w2", 2),
        ("a", "refused", "w1", 1),
        ("a", "succeeded", "w2", 2),
        ("a", "late", "w1", 1),
    ]
    assert [each.seconds for each in found] == [0, LEASE / 1000, 0, 0, 0]
    assert [each.detail for each in found] == ["", "", "succeeded", "", "failed"]


async def test_what_was_given_back_is_taken_over_without_a_lost_lease(
    broker: Broker, worker: Worker, other: Worker
) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    first, _ = await worker.take()
    await worker.release(first)
    assert await broker.leave(QUEUE, "w1") == 1
    await other.sweep()
    found = await told(broker)
    assert brief(found) == [
        ("a", "started", "w1", 1),
        ("b", "started", "w1", 1),
        ("a", "released", "w1", 1),
        ("b", "released", "w1", 1),
        ("a", "taken-over", "w2", 2),
        ("b", "taken-over", "w2", 2),
    ]
    assert [each.detail for each in found[2:4]] == ["forgiven", "unstarted"]
    assert [each.seconds for each in found[4:]] == [0, 0]


async def test_what_happens_to_those_that_wait(broker: Broker, worker: Worker) -> None:
    broker.now = lambda: 1_000
    await broker.add(QUEUE, [job("soon", delay=5), job("later", delay=90_000), job("never", delay=9_000)])
    broker.now = lambda: 2_000
    assert await broker.cancel(QUEUE, "never", "wrong\x1b[31m day", b"", 0) == "cancelled"
    await broker.hasten(QUEUE, "later")
    assert await broker.promote(QUEUE) == (2, None)
    delivery = next(each for each in await worker.take() if each.job_id == "soon")
    assert await broker.cancel(QUEUE, "soon", "", b"", 0) == "cancelling"
    await worker.settle(delivery, buried(delivery))
    assert await broker.revive(QUEUE, [job("soon")]) == 1
    found = await told(broker)
    assert brief([each for each in found if each.kind != "started"]) == [
        ("never", "cancelled", "", 0),
        ("later", "hastened", "", 0),
        ("soon", "due", "", 0),
        ("later", "due", "", 0),
        ("soon", "cancelling", "", 1),
        ("soon", "failed", "w1", 1),
        ("soon", "revived", "", 0),
    ]
    assert found[0].detail == "wrong\x1b[31m day"
    assert {each.at for each in found} == {2_000}


async def test_one_turn_is_told_in_the_order_in_which_it_happened(broker: Broker, worker: Worker) -> None:
    """What a blocking read brought began before, what the turn brings begins after what it settles."""
    await broker.add(QUEUE, [job("a")])
    await broker.prepare(QUEUE)
    line = broker.connections.line()
    (delivery,) = await broker.block(line, QUEUE, "w1", 1_000)
    await broker.turn(QUEUE, "w1", [(delivery, again(delivery))], 1, request=1, heard=["a"])
    assert [each.kind for each in await told(broker)] == ["started", "retrying", "started"]


async def test_a_request_that_is_sent_again_is_told_once(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    a, b = await worker.take()
    pairs = [(a, done()), (b, buried(b))]
    assert (await worker.turn(pairs)).replies == ["ok", "ok"]
    assert (await worker.turn(pairs, request=worker.request)).replies == ["dup", "dup"]
    assert [each.kind for each in await told(broker)] == ["started", "started", "succeeded", "failed"]


async def test_a_turn_that_did_nothing_is_not_told(broker: Broker, worker: Worker, look: Server) -> None:
    await worker.take()
    await broker.promote(QUEUE)
    await worker.sweep()
    await broker.leave(QUEUE, "w1")
    assert not look.client.exists(look.keys.ev)


# ---- what strangers write --------------------------------------------------------------------------------------


async def test_foreign_jobs_do_not_hide_the_others(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    stream = look.keys.stream(0)
    for fields in ({"i": b"\xff\xfe", "j": "b"}, {"x": "y"}, {"i": "two words", "j": "b"}, {"i": "i" * 200, "j": "b"}):
        look.client.xadd(stream, fields)
    await broker.add(QUEUE, [job("ours")])
    for delivery in await worker.take():
        look.expire(delivery)
    assert len(await other.sweep()) == 5
    found = await told(broker, "ours")
    assert brief(found) == [("ours", "started", "w1", 1), ("ours", "taken-over", "w2", 2)]


async def test_foreign_entries_are_skipped(broker: Broker, worker: Worker, look: Server) -> None:
    look.client.xadd(look.keys.ev, {"a": "soon", "w": "w", "f": "x"})
    await live(worker, "a")
    look.client.xadd(look.keys.ev, {"hello": "world"})
    look.client.xadd(look.keys.ev, {"a": 1, "w": b"\xff", "s": b"\xc1", "c": "oo"})
    await live(worker, "b")
    assert brief(await told(broker)) == [
        (name, kind, "w1", 1) for name in ("a", "b") for kind in ("started", "succeeded")
    ]


async def test_a_foreign_key_in_its_place_stops_no_job(broker: Broker, worker: Worker, look: Server) -> None:
    look.client.set(look.keys.ev, "mine")
    await live(worker, "a")
    assert look.client.get(look.keys.ev) == b"mine"
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await told(broker)


PACKED = msgspec.msgpack.encode
JUNK: list[dict[bytes, bytes]] = [
    {},
    {b"a": b""},
    {b"a": b"-1", b"f": b"a"},
    {b"a": b"9" * 20, b"f": b"a"},
    {b"a": b"9" * 5_000, b"f": b"a"},
    {b"a": b"1", b"w": b"\xff", b"f": b"a"},
    {b"a": b"1", b"f": b"\xff " + b"x" * 129},
    {b"a": b"1", b"s": b"\xc1", b"c": b"o"},
    {b"a": b"1", b"s": PACKED({"a": 1}), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", "f"]), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", "1", "a", "f", "SUCCESS", 0]), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", ["f"], "SUCCESS", 0]), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", "f", ["SUCCESS"], 0]), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", "z", "SUCCESS", 0]), b"c": b"o"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", "f", "SUCCESS", 0]), b"c": b"z"},
    {b"a": b"1", b"s": PACKED([0, "1-1", 1, "a", "f", "SUCCESS", 0]), b"c": b""},
    {b"a": b"1", b"b": PACKED(["married", "a", 1, ""])},
    {b"a": b"1", b"b": PACKED(["due", "", 1, ""])},
    {b"a": b"1", b"b": PACKED(["due", "a", 1])},
    {b"a": b"1", b"b": b"\x91" * 50_000},
]


@pytest.mark.parametrize("fields", JUNK, ids=range(len(JUNK)))
def test_what_cannot_be_read_is_left_out(fields: dict[bytes, bytes]) -> None:
    flat = [part for pair in fields.items() for part in pair]
    assert decode(QUEUE, flat) == []


def test_what_can_be_read_beside_it_is_not() -> None:
    fields = [b"a", b"1", b"w", b"w1", b"f", b"a \xff b", b"b", b"\x94\xa7claimed\xa1\xff\x02\xa0"]
    assert brief(decode(QUEUE, fields)) == [("a", "started", "w1", 1), ("b", "started", "w1", 1)]


values = st.recursive(
    st.none()
    | st.integers(-9, 9)
    | st.sampled_from(["f", "r", "l", "t", "SUCCESS", "due", "claimed", "a"])
    | st.binary(),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=20,
)
fields = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"w", b"h", b"s", b"c", b"b", b"f"]),
        st.binary(max_size=40) | values.map(PACKED) | st.sampled_from([b"1750000000000", b"ofg"]),
    )
)


@given(fields)
def test_it_never_raises(pairs: list[tuple[bytes, bytes]]) -> None:
    for each in decode(QUEUE, [part for pair in pairs for part in pair]):
        assert msgspec.json.encode(each)


# ---- how much is kept -------------------------------------------------------------------------------------------


async def test_it_is_trimmed_by_transitions(brokers: Brokers) -> None:
    broker = await brokers(events=100)
    worker = Worker(broker, "w1")
    for n in range(150):
        await live(worker, f"lone{n}")
    await live(worker, *[f"many{n}" for n in range(80)])
    for n in range(150, 200):
        await live(worker, f"lone{n}")
    found = await told(broker)
    assert 100 <= len(found) <= 300  # Redis drops whole nodes, of 100 entries or 4 KB
    assert brief(found[-2:]) == [("lone199", "started", "w1", 1), ("lone199", "succeeded", "w1", 1)]
    assert (await History(broker).reach(QUEUE)).trimmed


async def test_a_large_batch_drives_out_no_more_than_as_many_lone_ones(brokers: Brokers) -> None:
    broker = await brokers(events=1_000)
    worker = Worker(broker, "w1")
    for n in range(200):
        await live(worker, f"lone{n}")
    await live(worker, *[f"many{n}" for n in range(200)])
    assert len(await told(broker)) == 800
    assert not (await History(broker).reach(QUEUE)).trimmed


async def test_switched_off_it_writes_no_key(brokers: Brokers, raw: redis.Redis) -> None:
    broker = await brokers(events=0)
    worker = Worker(broker, "w1")
    await live(worker, "a", "b")
    await broker.add(QUEUE, [job("c", delay=60_000), job("d")])
    await broker.cancel(QUEUE, "c", "", b"", 0)
    delivery = await worker.one()
    await broker.turn(QUEUE, "w1", [(delivery, buried(delivery))], 0, request=99, heard=["d"])
    await broker.revive(QUEUE, [job("d")])
    await worker.take()
    await broker.leave(QUEUE, "w1")
    await Worker(broker, "w2").sweep()
    assert not raw.exists(broker.keys(QUEUE).ev)
    assert await told(broker) == []
    assert await History(broker).reach(QUEUE) == (None, False)


async def test_pages_are_bounded_and_nothing_falls_between_them(
    broker: Broker, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 3)
    for n in range(10):
        await live(worker, str(n))
    found = await told(broker)
    assert [each.job_id for each in found] == [str(n // 2) for n in range(20)]
    assert brief(await told(broker, "4")) == [("4", "started", "w1", 1), ("4", "succeeded", "w1", 1)]


async def test_since_ends_the_reading(broker: Broker, worker: Worker) -> None:
    for n in range(5):
        broker.now = lambda now=NOW + n: now
        await live(worker, str(n))
    found = [each.job_id async for each in History(broker).backward(QUEUE, since=NOW + 3)]
    assert found == ["4", "4", "3", "3"]


# ---- following ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BLOCK_MS", 50)


async def first(feed: Feed) -> list[Transition]:
    async with asyncio.timeout(10), aclosing(feed.follow()) as pages:
        async for page in pages:
            if page:
                return page
    raise AssertionError


@pytest.fixture
async def feeds() -> AsyncIterator[list[Feed]]:
    opened: list[Feed] = []
    yield opened
    for feed in opened:
        await feed.aclose()


async def test_several_queues_are_followed(broker: Broker, worker: Worker, feeds: list[Feed]) -> None:
    await live(worker, "before")
    more = Worker(broker, "w9", "more")
    feeds.append(feed := Feed(broker, {QUEUE: await History(broker).end(QUEUE), "more": BEGINNING}))
    reading = asyncio.ensure_future(first(feed))
    await live(worker, "a")
    assert brief(await reading)[:1] == [("a", "started", "w1", 1)]
    await broker.add("more", [job("b")])
    await more.take()
    while ("b", "started", "w9", 1) not in brief(await first(feed)):
        pass


async def test_a_new_queue_joins_in(broker: Broker, feeds: list[Feed], quick: None) -> None:
    feeds.append(feed := Feed(broker, {}, everywhere=True))
    reading = asyncio.ensure_future(first(feed))
    await broker.add("new", [job("a")])
    await Worker(broker, "w1", "new").take()
    assert brief(await reading) == [("a", "started", "w1", 1)]


async def test_it_goes_on_after_the_server_was_flushed(
    broker: Broker, worker: Worker, look: Server, feeds: list[Feed], quick: None
) -> None:
    for n in range(50):
        await live(worker, f"old{n}")
    feeds.append(feed := Feed(broker, {QUEUE: await History(broker).end(QUEUE)}))
    look.client.delete(*look.client.keys(look.keys.prefix + "*"))
    await live(worker, "a")
    assert brief(await first(feed))[:1] == [("a", "started", "w1", 1)]


async def test_it_waits_for_a_server_that_went_away(namespace: str, feeds: list[Feed]) -> None:
    from streamq.core.options import AppOptions

    with Redis() as server:
        server.start()
        broker = Broker(server.url, AppOptions(namespace=namespace))
        await broker.open()
        worker = Worker(broker, "w1")
        await live(worker, "a")
        feed = Feed(broker, {QUEUE: BEGINNING})
        said: list[BaseException] = []
        pages: list[list[Transition]] = []

        async def read() -> None:
            async with aclosing(feed.follow(lambda error, _: said.append(error))) as following:
                async for page in following:
                    pages.append(page)

        reading = asyncio.create_task(read())
        await until(lambda: len(pages) == 1)
        server.kill()
        await until(lambda: bool(said))
        server.start()
        await until(lambda: len(pages) == 2)
        assert pages[1] == []  # it answers again, though nothing happened
        await live(worker, "b")
        await until(lambda: any(each.job_id == "b" for page in pages for each in page))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await feed.aclose()
        await broker.close()
