"""Adding jobs: where they go, in which order they come out, and once however often they are sent."""

from __future__ import annotations

import pytest
import redis

from streamq.broker import scripts
from streamq.broker.broker import Broker, NewJob, fingerprint, idempotency
from streamq.broker.wire import encode_record, encode_value
from streamq.core.job import State
from streamq.errors import BrokerError
from tests.broker.byhand import QUEUE, Server, Worker, again, buried, done, job, record

FINE = fingerprint(encode_value([1]), encode_value({}))
OTHER = fingerprint(encode_value([2]), encode_value({}))
KEY = idempotency("task", "invoice-7")


def keyed(job_id: str = "", *, print_: str = FINE, retry_failed: bool = False) -> NewJob:
    return job(job_id, key=KEY, fingerprint=print_, retry_failed=retry_failed)


async def test_one_job_comes_out_as_it_went_in(broker: Broker, worker: Worker, look: Server) -> None:
    sent = job("a", 1, "x")
    (placed,) = await broker.add(QUEUE, [sent])
    assert (placed.job_id, placed.status) == ("a", "new")
    delivery = await worker.one()
    assert (delivery.job_id, delivery.body, delivery.count, delivery.crashes) == ("a", sent.body, 1, 0)
    assert await worker.settle(delivery, done()) == "ok"
    look.assert_clean()


async def test_no_jobs_are_no_round_trip(broker: Broker) -> None:
    assert await broker.add(QUEUE, [], durability="replicas:1") == []


async def test_a_full_batch_and_not_one_more(broker: Broker, look: Server) -> None:
    placed = await broker.add(QUEUE, [job() for _ in range(500)])
    assert {each.status for each in placed} == {"new"}
    assert look.lengths() == len(look.unfinished()) == 500
    with pytest.raises(ValueError, match="at most 500"):
        await broker.add(QUEUE, [job() for _ in range(501)])


async def test_higher_priorities_come_first(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job(f"{priority}", priority=priority) for priority in (3, 9, 0, 5)])
    assert [each.job_id for each in await worker.take(3)] == ["9", "5", "3"]
    assert [each.job_id for each in await worker.take(3)] == ["0"]


async def test_a_delayed_job_waits(broker: Broker, worker: Worker, look: Server) -> None:
    broker.now = lambda: 1_000_000
    await broker.add(QUEUE, [job("in", delay=500, priority=4), job("at", due=1_000_700)])
    assert look.lengths() == 0
    assert (await broker.find(QUEUE, "in")).due == 1_000_500
    found = await broker.find(QUEUE, "at")
    assert (found.where, found.due) == ("due", 1_000_700)
    assert await worker.take() == []


async def test_what_is_already_due_does_not_wait(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [job("past", due=1)])
    assert (await worker.one()).job_id == "past"


async def test_an_earlier_job_rings_the_bell(broker: Broker, raw: redis.Redis) -> None:
    broker.now = lambda: 1_000
    with raw.pubsub(ignore_subscribe_messages=True) as bell:
        bell.subscribe(broker.bell(QUEUE))
        bell.get_message(timeout=5.0)
        await broker.add(QUEUE, [job(due=9_000)])
        await broker.add(QUEUE, [job(due=9_500)])
        await broker.add(QUEUE, [job(due=5_000)])
        raw.publish(broker.bell(QUEUE), "end")
        heard: list[bytes] = []
        while not heard or heard[-1] != b"end":
            message = bell.get_message(timeout=5.0)
            assert message is not None
            heard.append(message["data"])
    assert heard == [b"due 8000", b"due 4000", b"end"]


# ---- ids and keys -----------------------------------------------------------------------------------------


async def test_an_id_of_ones_own_is_taken_once(broker: Broker, worker: Worker, look: Server) -> None:
    twice = [job("mine", own_id=True), job("mine", own_id=True)]
    assert [each.status for each in await broker.add(QUEUE, twice)] == ["new", "duplicate"]
    assert [each.status for each in await broker.add(QUEUE, twice[:1])] == ["duplicate"]
    await worker.settle(await worker.one(), done())
    (placed,) = await broker.add(QUEUE, twice[:1])  # its record is still there
    assert (placed.job_id, placed.status) == ("mine", "duplicate")
    look.assert_clean()


async def test_an_idempotency_key(broker: Broker, worker: Worker, look: Server) -> None:
    batch = [keyed("a"), keyed("b"), keyed("c", print_=OTHER)]
    placed = await broker.add(QUEUE, batch)
    assert [(each.job_id, each.status) for each in placed] == [("a", "new"), ("a", "duplicate"), ("a", "mismatch")]
    assert look.client.ttl(look.keys.keys + KEY) == -1
    await worker.settle(await worker.one(), done())
    assert 86_000 < look.client.ttl(look.keys.keys + KEY) <= 86_400
    assert look.client.ttl(look.keys.records + "a") > 86_000  # a duplicate finds its result as long
    assert [each.status for each in await broker.add(QUEUE, [keyed("d")])] == ["duplicate"]
    look.assert_clean()


async def test_the_key_is_held_over_a_retry(broker: Broker, worker: Worker) -> None:
    await broker.add(QUEUE, [keyed("a")])
    delivery = await worker.one()
    await worker.settle(delivery, again(delivery, 60_000))
    assert [each.status for each in await broker.add(QUEUE, [keyed("b", retry_failed=True)])] == ["duplicate"]


async def test_the_key_of_a_failed_job(broker: Broker, worker: Worker, look: Server) -> None:
    await broker.add(QUEUE, [keyed("a")])
    delivery = await worker.one()
    await worker.settle(delivery, buried(delivery))
    assert [each.status for each in await broker.add(QUEUE, [keyed("b")])] == ["duplicate"]
    (placed,) = await broker.add(QUEUE, [keyed("c", retry_failed=True)])
    assert (placed.job_id, placed.status) == ("c", "new")
    assert look.client.ttl(look.keys.keys + KEY) == -1
    assert [each.job_id for each in await broker.add(QUEUE, [keyed("d", retry_failed=True)])] == ["c"]
    await worker.settle(await worker.one(), done())
    look.assert_clean()


async def test_the_key_of_a_cancelled_job(broker: Broker, look: Server) -> None:
    await broker.add(QUEUE, [keyed("a")])
    assert await broker.cancel(QUEUE, "a", "no", encode_record(record(State.CANCELLED)), 1000) == "cancelled"
    assert look.client.ttl(look.keys.keys + KEY) > 86_000
    look.assert_clean()


# ---- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["jobs", "side", "due", "body", "stream", "key", "ring"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    broker: Broker, look: Server, which: str
) -> None:
    k = look.keys
    names = {"stream": k.stream(7), "key": k.keys + KEY, "ring": k.ring(broker.client_id)}
    name = names.get(which) or getattr(k, which)
    look.client.set(name, "foreign", px=60_000)
    batch = [job("first"), job("later", delay=9_000), job("keyed", key=KEY, fingerprint=FINE), job("p7", priority=7)]
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await broker.add(QUEUE, batch)
    assert list(look.client.scan_iter(f"*{broker.options.namespace}/*")) == [name.encode()]


async def test_a_server_that_forgot_the_scripts_is_told(broker: Broker, worker: Worker, raw: redis.Redis) -> None:
    for _ in range(2):
        raw.script_flush()
        assert [each.status for each in await broker.add(QUEUE, [job()])] == ["new"]
        raw.script_flush()
        assert await worker.settle(await worker.one(), done()) == "ok"


async def test_every_script_is_known_by_its_digest(broker: Broker, raw: redis.Redis) -> None:
    digests = [raw.script_load(script.text) for script in scripts.SCRIPTS.values()]
    assert digests == [script.sha for script in scripts.SCRIPTS.values()]
