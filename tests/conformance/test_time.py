"""What waits for its time: promotion, schedules, and a clock that tests may set."""

from __future__ import annotations

import pytest

from streamq.broker.broker import Broker
from tests.broker.byhand import QUEUE, Server, Worker, done, job


class Clock:
    """The server's time as the test says it."""

    def __init__(self, broker: Broker, now: int = 1_000_000) -> None:
        self.now = now
        broker.now = lambda: self.now


async def test_promote_obeys_the_time(broker: Broker, worker: Worker, look: Server) -> None:
    clock = Clock(broker)
    assert await broker.promote(QUEUE) == (0, None)
    await broker.add(QUEUE, [job("later", delay=5_000), job("soon", delay=2_000, priority=4)])
    assert await broker.promote(QUEUE) == (0, 2_000)
    clock.now += 2_000
    assert await broker.promote(QUEUE) == (1, 3_000)
    assert await broker.promote(QUEUE) == (0, 3_000)
    found = await broker.find(QUEUE, "soon")
    assert (found.where, found.priority) == ("stream", 4)
    clock.now += 10_000
    assert await broker.promote(QUEUE) == (1, None)
    assert not look.client.exists(look.keys.due, look.keys.body)
    assert [each.job_id for each in await worker.take()] == ["soon", "later"]


async def test_promote_moves_a_bounded_number_the_earliest_first(broker: Broker, look: Server) -> None:
    clock = Clock(broker)
    await broker.add(QUEUE, [job(delay=2_000) for _ in range(200)])
    await broker.add(QUEUE, [job(delay=1_000) for _ in range(50)])
    clock.now += 5_000
    assert await broker.promote(QUEUE) == (200, 0)
    assert look.client.zcard(look.keys.due) == 50
    assert look.client.zrange(look.keys.due, 0, -1, withscores=True)[0][1] == 1_002_000
    assert await broker.promote(QUEUE) == (50, None)
    assert look.lengths() == 250


async def test_the_next_due_time_is_of_real_time_too(broker: Broker) -> None:
    await broker.add(QUEUE, [job(delay=60_000)])
    moved, wait = await broker.promote(QUEUE)
    assert moved == 0
    assert wait is not None
    assert 50_000 < wait <= 60_000


async def test_promote_stops_before_a_wrong_stream(broker: Broker, look: Server) -> None:
    clock = Clock(broker)
    await broker.add(QUEUE, [job("fine", delay=1), job("wrong", delay=2, priority=3)])
    clock.now += 10
    look.client.set(look.keys.stream(3), "foreign")
    for _ in range(2):
        with pytest.raises(Exception, match="WRONGTYPE"):
            await broker.promote(QUEUE)
    assert look.client.xlen(look.keys.stream(0)) == 0
    look.client.delete(look.keys.stream(3))
    assert await broker.promote(QUEUE) == (2, None)
    assert look.lengths() == 2


async def test_a_revived_retry_is_promoted_once(broker: Broker, worker: Worker, look: Server) -> None:
    clock = Clock(broker)
    await broker.add(QUEUE, [job("a", delay=10)])
    clock.now += 10
    assert await broker.promote(QUEUE) == (1, None)
    assert await broker.promote(QUEUE) == (0, None)
    assert await worker.settle(await worker.one(), done()) == "ok"
    look.assert_clean()


# ---- schedules ----------------------------------------------------------------------------------------------


async def test_an_occurrence_is_enqueued_once(broker: Broker, worker: Worker) -> None:
    Clock(broker)
    assert await broker.fire(QUEUE, "nightly", 900_000, job("n1", priority=8))
    assert not await broker.fire(QUEUE, "nightly", 900_000, job("n2"))
    assert not await broker.fire(QUEUE, "nightly", 899_999, job("n3"))
    assert await broker.fire(QUEUE, "hourly", 900_000, job("h1"))
    assert [each.job_id for each in await worker.take()] == ["n1", "h1"]
    assert await broker.last_fired(QUEUE, ["nightly", "hourly"]) == {"nightly": 900_000, "hourly": 900_000}
    assert await broker.queues() == [QUEUE]


async def test_an_occurrence_is_never_early(broker: Broker, worker: Worker) -> None:
    clock = Clock(broker)
    assert not await broker.fire(QUEUE, "nightly", 1_000_001, job("n1"))
    clock.now += 1
    assert await broker.fire(QUEUE, "nightly", 1_000_001, job("n1"))
    assert (await worker.one()).job_id == "n1"


async def test_an_occurrence_that_is_skipped(broker: Broker, worker: Worker) -> None:
    Clock(broker)
    assert await broker.fire(QUEUE, "nightly", 900_000, None)
    assert not await broker.fire(QUEUE, "nightly", 900_000, job("n1"))
    assert await worker.take() == []


async def test_a_new_schedule_begins_now(broker: Broker) -> None:
    clock = Clock(broker)
    assert await broker.last_fired(QUEUE, []) == {}
    assert await broker.last_fired(QUEUE, ["a"]) == {"a": 1_000_000}
    clock.now += 500
    assert await broker.last_fired(QUEUE, ["a", "b"]) == {"a": 1_000_000, "b": 1_000_500}


@pytest.mark.parametrize("which", ["cron", "jobs", "stream"])
async def test_fire_with_a_wrong_key_writes_nothing(broker: Broker, look: Server, which: str) -> None:
    Clock(broker)
    name = look.keys.stream(0) if which == "stream" else getattr(look.keys, which)
    look.client.set(name, "foreign")
    with pytest.raises(Exception, match=r"WRONGTYPE|wrong kind"):
        await broker.fire(QUEUE, "nightly", 900_000, job("n1"))
    look.client.delete(name)
    assert look.lengths() == 0
    assert not look.client.exists(look.keys.cron)
