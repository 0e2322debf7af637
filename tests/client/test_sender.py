"""Round trips are shared, and nobody pays for another's cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamq import NotDurable, QueueFull
from streamq.broker.broker import NewJob, Placed
from streamq.client.sender import MAX_BYTES, Sender
from streamq.core.limits import MAX_BATCH


class Redis:
    """Records the flights; each waits for its permission to land."""

    def __init__(self) -> None:
        self.flights: list[tuple[str, str | None, list[str]]] = []
        self.landing = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def add(self, queue: str, jobs: Sequence[NewJob], durability: str | None) -> list[Placed]:
        self.flights.append((queue, durability, [job.job_id for job in jobs]))
        await asyncio.sleep(0)
        await self.landing.acquire()
        if self.error:
            raise self.error
        return [Placed(job.job_id, "new") for job in jobs]


def job(name: object, size: int = 1) -> NewJob:
    return NewJob(str(name), b"x" * size)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_goes_at_once_and_the_others_share_the_next() -> None:
    redis = Redis()
    sender = Sender(redis)
    first = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    others = [asyncio.ensure_future(sender.send("q", job(name), None)) for name in "bcd"]
    await settle()
    assert redis.flights == [("q", None, ["a"])]
    redis.landing.release()
    assert (await first).job_id == "a"
    await settle()
    assert redis.flights[1:] == [("q", None, ["b", "c", "d"])]
    redis.landing.release()
    assert [placed.job_id for placed in await asyncio.gather(*others)] == ["b", "c", "d"]
    await sender.drain()
    assert len(redis.flights) == 2


async def test_queues_and_durabilities_travel_apart() -> None:
    redis = Redis()
    sender = Sender(redis)
    ways = [("q", None), ("q", "fsync"), ("r", None)]
    waiting = [asyncio.ensure_future(sender.send(queue, job(i), kind)) for i, (queue, kind) in enumerate(ways)]
    await settle()
    assert sorted(flight[2] for flight in redis.flights) == [["0"], ["1"], ["2"]]
    for _ in ways:
        redis.landing.release()
    await asyncio.gather(*waiting)


async def test_a_flight_has_a_size() -> None:
    redis = Redis()
    sender = Sender(redis)
    for _ in range(10):
        redis.landing.release()
    await asyncio.gather(*(sender.send("q", job(i), None) for i in range(MAX_BATCH + 2)))
    assert [len(flight[2]) for flight in redis.flights] == [1, MAX_BATCH, 1]
    redis.flights.clear()
    await asyncio.gather(*(sender.send("q", job(i, MAX_BYTES // 2), None) for i in range(4)))
    assert [len(flight[2]) for flight in redis.flights] == [1, 2, 1]
    redis.flights.clear()
    await sender.send("q", job("large", MAX_BYTES + 1), None)
    assert [len(flight[2]) for flight in redis.flights] == [1]


async def test_cancelling_one_caller_cancels_no_other() -> None:
    redis = Redis()
    sender = Sender(redis)
    alone = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    first, second = (asyncio.ensure_future(sender.send("q", job(name), None)) for name in "bc")
    await settle()
    alone.cancel()  # the others wait for its flight, and need not wait for it
    await settle()
    waiting = [asyncio.ensure_future(sender.send("q", job(name), None)) for name in "de"]
    await settle()
    first.cancel()
    waiting[0].cancel()
    redis.landing.release()
    redis.landing.release()
    assert (await second).job_id == "c"
    assert (await waiting[1]).job_id == "e"
    assert alone.cancelled()
    assert first.cancelled()
    # What was under way has gone; what had not left stays at home.
    assert [flight[2] for flight in redis.flights] == [["a"], ["b", "c"], ["e"]]


async def test_all_cancelled_is_no_flight() -> None:
    redis = Redis()
    sender = Sender(redis)
    first = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    second = asyncio.ensure_future(sender.send("q", job("b"), None))
    await settle()
    second.cancel()
    redis.landing.release()
    await first
    await sender.drain()
    assert len(redis.flights) == 1
    redis.landing.release()
    assert (await sender.send("q", job("c"), None)).job_id == "c"


async def test_an_error_reaches_every_caller_with_its_own_job() -> None:
    redis = Redis()
    sender = Sender(redis)
    redis.error = NotDurable("not yet on disk", "a")
    redis.landing.release()
    redis.landing.release()
    errors = await asyncio.gather(*(sender.send("q", job(name), None) for name in "abc"), return_exceptions=True)
    assert [getattr(error, "job_id", None) for error in errors] == ["a", "b", "c"]
    assert [flight[2] for flight in redis.flights] == [["a"], ["b", "c"]]
    redis.error = QueueFull("full")
    redis.landing.release()
    with pytest.raises(QueueFull, match="full"):
        await sender.send("q", job("c"), None)


async def test_a_flight_that_is_cancelled_before_it_starts_blocks_nobody() -> None:
    redis = Redis()
    sender = Sender(redis)
    alone = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    second = asyncio.ensure_future(sender.send("q", job("b"), None))
    await settle()
    redis.landing.release()
    before = asyncio.all_tasks()
    while not (flights := asyncio.all_tasks() - before):
        await asyncio.sleep(0)
    for flight in flights:
        flight.cancel()
    assert (await alone).job_id == "a"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, 5)
    redis.landing.release()
    assert (await asyncio.wait_for(sender.send("q", job("c"), None), 5)).job_id == "c"
    await sender.drain()
    assert [flight[2] for flight in redis.flights] == [["a"], ["c"]]


async def test_a_flight_that_is_cancelled_on_its_way_blocks_nobody() -> None:
    redis = Redis()
    sender = Sender(redis)
    alone = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    second = asyncio.ensure_future(sender.send("q", job("b"), None))
    await settle()
    redis.landing.release()
    await alone
    await settle()
    third = asyncio.ensure_future(sender.send("q", job("c"), None))
    await settle()
    assert [flight[2] for flight in redis.flights] == [["a"], ["b"]]
    (flight,) = asyncio.all_tasks() - {second, third, asyncio.current_task()}
    flight.cancel()
    await settle()
    assert second.cancelled()
    assert third.cancelled()
    redis.landing.release()
    assert (await asyncio.wait_for(sender.send("q", job("d"), None), 5)).job_id == "d"


async def test_draining_waits_for_whoever_flies_alone() -> None:
    redis = Redis()
    sender = Sender(redis)
    alone = asyncio.ensure_future(sender.send("q", job("a"), None))
    await settle()
    drained = asyncio.ensure_future(sender.drain())
    await settle()
    assert not drained.done()
    redis.landing.release()
    await asyncio.wait_for(drained, 5)
    assert alone.done()
