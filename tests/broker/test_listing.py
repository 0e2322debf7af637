"""The jobs of a queue, place by place: all of them, each once, page by page, while they move."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pytest
import redis

from streamq.broker import listing
from streamq.broker.broker import Broker, Found, NewJob
from streamq.broker.inspector import WorkerInfo
from streamq.broker.listing import Listing, task_of
from streamq.broker.wire import encode_progress, encode_record
from streamq.core.job import Progress, Reason, State
from streamq.errors import BrokerError
from tests.broker.byhand import ERROR, QUEUE, Server, Worker, again, body, buried, done, job, record
from tests.broker.conftest import Brokers

UNFINISHED = {State.SCHEDULED, State.RETRY, State.PENDING, State.QUEUED, State.STARTED}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 3)


async def walk(broker: Broker, *states: State, task: str | None = None) -> list[Found]:
    wanted: Collection[State] = states or frozenset(State)
    return [found async for found in Listing(broker).walk(QUEUE, wanted, task)]


async def ids(broker: Broker, *states: State, task: str | None = None) -> list[str]:
    return [found.job_id for found in await walk(broker, *states, task=task)]


async def finish_all(worker: Worker) -> None:
    for delivery in [*worker.held, *await worker.take(1000)]:
        await worker.settle(delivery, done())


async def test_an_empty_queue(broker: Broker) -> None:
    assert await walk(broker) == []


async def test_queued_jobs_come_as_workers_will_take_them(broker: Broker, worker: Worker) -> None:
    for priority in (0, 9, 4):
        await broker.add(QUEUE, [job(f"{priority}-{n}", priority=priority) for n in range(4)])
    listed = await walk(broker, State.QUEUED)
    assert [found.job_id for found in listed] == [f"{p}-{n}" for p in (9, 4, 0) for n in range(4)]
    assert {(found.where, found.priority) for found in listed} == {("stream", 9), ("stream", 4), ("stream", 0)}
    assert listed[0].body == job("", priority=9).body
    assert [delivery.job_id for delivery in await worker.take(12)] == [found.job_id for found in listed]
    assert await ids(broker, State.QUEUED) == []
    await finish_all(worker)


async def test_running_jobs_with_who_holds_them(broker: Broker, worker: Worker, other: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job(str(n)) for n in range(9)])
    held = await worker.take(5)
    await other.take(2)
    look.expire(held[0])
    await broker.set_progress(QUEUE, "1", encode_progress(Progress(1, 2)))
    await broker.cancel(QUEUE, "2", "changed my mind", encode_record(record(State.CANCELLED)), 0)
    running = await walk(broker, State.STARTED)
    assert [(found.job_id, found.consumer) for found in running] == [
        *((str(n), "w1") for n in range(5)), ("5", "w2"), ("6", "w2"),
    ]  # fmt: skip
    assert running[0].idle > 30_000
    assert running[1].progress == Progress(1, 2)
    assert running[2].cancelling == "changed my mind"
    assert [(found.where, found.delivery, found.cancelling) for found in running[3:4]] == [("running", 1, None)]
    assert await ids(broker, State.QUEUED) == ["7", "8"]
    await finish_all(other)
    await finish_all(worker)


async def test_what_was_given_back_waits(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job(str(n)) for n in range(3)])
    first, second = await worker.take(2)
    await worker.release(first)
    queued = await walk(broker, State.QUEUED)
    assert [(found.job_id, found.where, found.delivery, found.forgiven) for found in queued] == [
        ("0", "stream", 1, 1), ("2", "stream", 0, 0),
    ]  # fmt: skip
    assert await ids(broker, State.STARTED) == [second.job_id]
    await worker.sweep()
    await finish_all(worker)


async def test_jobs_of_a_stream_without_a_group(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a")])  # no worker was ever there
    assert (await ids(broker, State.QUEUED), await ids(broker, State.STARTED)) == (["a"], [])
    await finish_all(worker)


async def test_what_streamq_did_not_write_is_left_out(broker: Broker, worker: Worker, raw: redis.Redis) -> None:
    await broker.add(QUEUE, [job("a")])
    raw.xadd(broker.keys(QUEUE).stream(0), {"what": "ever"})
    assert await ids(broker) == ["a"]
    for delivery in await worker.take():
        await worker.settle(delivery, buried(delivery, Reason.UNREADABLE) if delivery.job_id != "a" else done())


async def test_delayed_jobs_by_due_time(broker: Broker, worker: Worker) -> None:
    broker.now = lambda: 5_000
    same = [job(f"s{n}", due=9_000, priority=n) for n in range(7)]
    await broker.add(QUEUE, [job("late", due=20_000), *same, job("soon", due=6_000), job("r"), job("u")])
    retried, unknown = await worker.take(2)
    await worker.settle(retried, again(retried, 2_000))
    await worker.settle(unknown, again(unknown, 1_500, State.PENDING))
    await broker.set_progress(QUEUE, "late", encode_progress(Progress(7)))
    listed = await walk(broker, *UNFINISHED)
    assert [(found.job_id, found.where, found.due) for found in listed] == [
        ("soon", "due", 6_000), ("u", "parked", 6_500), ("r", "retry", 7_000),
        *((f"s{n}", "due", 9_000) for n in range(7)), ("late", "due", 20_000),
    ]  # fmt: skip
    assert listed[5].priority == 2
    assert listed[-1].progress == Progress(7)
    assert await ids(broker, State.RETRY) == ["r"]
    assert await ids(broker, State.PENDING) == ["u"]
    assert len(await ids(broker, State.SCHEDULED)) == 9
    broker.now = lambda: 30_000
    await broker.promote(QUEUE)
    await finish_all(worker)


@pytest.mark.parametrize("due", [9_000, 0], ids=["of one time", "of a time each"])
async def test_delayed_jobs_that_leave_while_they_are_read_hide_none(broker: Broker, due: int) -> None:
    broker.now = lambda: 5_000
    await broker.add(QUEUE, [job(f"{n:02}", due=due or 9_000 + n) for n in range(20)])
    ended = encode_record(record(State.CANCELLED))
    seen: list[str] = []
    async for found in Listing(broker).walk(QUEUE, {State.SCHEDULED}):
        seen.append(found.job_id)
        if int(found.job_id) % 4:  # some stay
            await broker.cancel(QUEUE, found.job_id, "", ended, 0)
    assert seen == [f"{n:02}" for n in range(20)]
    for job_id in await ids(broker):
        await broker.cancel(QUEUE, job_id, "", ended, 0)


async def test_finished_jobs_the_newest_first(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [job(str(n)) for n in range(8)])
    deliveries = await worker.take(8)
    for delivery in deliveries[:4]:
        await worker.settle(delivery, done())
    await worker.turn([(deliveries[4], done(State.EXPIRED)), (deliveries[5], done(ttl=0))])
    await worker.settle(deliveries[6], buried(deliveries[6]))
    await worker.release(deliveries[7])
    await broker.cancel(QUEUE, "7", "", encode_record(record(State.CANCELLED)), 60_000)
    listed = await walk(broker)
    assert [(found.job_id, found.record and found.record.state) for found in listed] == [
        ("7", "CANCELLED"), ("6", "FAILURE"), ("4", "EXPIRED"), *((str(n), "SUCCESS") for n in (3, 2, 1, 0)),
    ]  # fmt: skip
    assert await ids(broker, State.SUCCESS) == ["3", "2", "1", "0"]
    assert await ids(broker, State.CANCELLED, State.EXPIRED) == ["7", "4"]
    assert {found.where for found in listed} == {"gone"}


async def test_a_dead_letter_outlives_its_record(broker: Broker, worker: Worker, raw: redis.Redis) -> None:
    await broker.add(QUEUE, [job(str(n), priority=3) for n in range(5)])
    for delivery in await worker.take():
        await worker.settle(delivery, buried(delivery, Reason.EXHAUSTED, ttl=0 if delivery.job_id == "4" else 60_000))
    raw.delete(broker.keys(QUEUE).records + "3")
    assert await ids(broker, State.FAILURE) == ["2", "1", "0", "4", "3"]
    assert await ids(broker, State.SUCCESS) == []
    letter = (await walk(broker, State.FAILURE))[-1]
    assert letter.record is not None
    assert (letter.record.state, letter.record.reason, letter.record.error, letter.priority) == (
        State.FAILURE, "exhausted", ERROR, 3,
    )  # fmt: skip
    found = await broker.find(QUEUE, "3")
    assert (found.where, found.record) == ("gone", letter.record)
    await broker.discard(QUEUE, ["3"])
    assert (await broker.find(QUEUE, "3")).record is None


async def test_a_revived_job_is_no_longer_finished(broker: Broker, worker: Worker) -> None:
    sent = job("a")
    await broker.add(QUEUE, [sent])
    delivery = await worker.one()
    await worker.settle(delivery, buried(delivery))
    await broker.revive(QUEUE, [NewJob("a", sent.body)])
    assert [(found.job_id, found.where) for found in await walk(broker)] == [("a", "stream")]
    await finish_all(worker)


async def test_finished_jobs_whose_records_are_kept_apart(
    brokers: Brokers, worker: Worker, url: str, namespace: str, raw: redis.Redis
) -> None:
    apart = await brokers(result_url=f"{url}?db=9" if url.startswith("unix") else url.rsplit("/", 1)[0] + "/9")
    await apart.add(QUEUE, [job("a")])
    there = Worker(apart, "w3")
    await there.settle(await there.one(), done())
    assert raw.get(apart.keys(QUEUE).records + "a") is None
    assert await ids(apart, State.SUCCESS) == ["a"]


async def test_without_a_history_finished_jobs_are_not_found(brokers: Brokers) -> None:
    silent = await brokers(events=0)
    await silent.add(QUEUE, [job("a"), job("b")])
    worker = Worker(silent, "w1")
    first, second = await worker.take()
    await worker.settle(first, done())
    await worker.settle(second, buried(second))
    assert await ids(silent) == ["b"]  # a dead letter needs none


async def test_jobs_of_one_task(broker: Broker, worker: Worker) -> None:
    names = ["mail.send", "mail.copy", "pay", "mail.send"]
    await broker.add(QUEUE, [NewJob(str(n), msgspec.msgpack.encode(body(name))) for n, name in enumerate(names)])
    await broker.add(QUEUE, [NewJob("torn", b"\xc1")])
    assert await ids(broker, task="mail.*") == ["0", "1", "3"]
    assert await ids(broker, task="pay") == ["2"]
    assert [task_of(found) for found in await walk(broker)] == [*names, ""]
    for delivery in await worker.take():
        settlement = buried(delivery, Reason.UNREADABLE) if delivery.job_id == "torn" else done()
        await worker.settle(delivery, settlement)


async def test_a_job_that_moves_on_meanwhile_is_listed_once(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("a"), job("b")])
    seen: list[str] = []
    async for found in Listing(broker).walk(QUEUE):
        seen.append(found.job_id)
        if len(seen) == 1:
            await worker.take()
    assert seen == ["a", "b"]
    await finish_all(worker)


async def test_a_job_acknowledged_before_it_runs_is_named_by_its_worker(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("early"), job("over")])
    for delivery in await worker.take():
        await worker.settle(delivery, done(State.STARTED))
    await broker.store(QUEUE, "over", encode_record(record()), 60_000)
    info = WorkerInfo("w1", "host", 1, "1", [QUEUE], 1, [], 0, running=[("early", "task", 7), ("over", "task", 7)])
    renewer = broker.renewer()
    try:
        renewer.renew(QUEUE, "w1", [], msgspec.msgpack.encode(info), 30_000)
    finally:
        renewer.close()
    assert await ids(broker, State.STARTED) == ["early"]
    assert await ids(broker, State.SUCCESS) == ["over"]
    await broker.leave(QUEUE, "w1")


async def test_a_key_that_holds_something_else_is_named(broker: Broker, raw: redis.Redis) -> None:
    raw.set(broker.keys(QUEUE).due, "mine", ex=60)
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await walk(broker, State.SCHEDULED)


# ---- hasten -------------------------------------------------------------------------------------------------


async def test_hasten_makes_a_delayed_job_due(broker: Broker, worker: Worker, raw: redis.Redis) -> None:
    broker.now = lambda: 5_000
    await broker.add(QUEUE, [job("a", due=9_000), job("b", due=9_500)])
    with raw.pubsub(ignore_subscribe_messages=True) as bell:
        bell.subscribe(broker.bell(QUEUE))
        bell.get_message(timeout=5)
        assert await broker.hasten(QUEUE, "b")
        message = bell.get_message(timeout=5)
    assert message is not None
    assert message["data"] == b"due 0"
    assert (await broker.find(QUEUE, "b")).due == 5_000
    assert await broker.hasten(QUEUE, "b")  # again: it is due already
    assert await broker.promote(QUEUE) == (1, 4_000)
    assert not await broker.hasten(QUEUE, "b")
    assert not await broker.hasten(QUEUE, "nobody")
    broker.now = lambda: 10_000
    await broker.promote(QUEUE)
    await finish_all(worker)


async def test_hasten_never_makes_a_due_job_later(broker: Broker, worker: Worker) -> None:
    broker.now = lambda: 5_000
    await broker.add(QUEUE, [job("a", due=6_000)])
    broker.now = lambda: 7_000
    assert await broker.hasten(QUEUE, "a")
    assert (await broker.find(QUEUE, "a")).due == 6_000
    await broker.promote(QUEUE)
    await finish_all(worker)
