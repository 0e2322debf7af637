"""Redis dies, forgets, or is not there yet. No worker ends for that, and no job is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from streamq import StreamQ, Task
from tests.worker.processes import Redis
from tests.worker.waits import until


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


class Load:
    """A producer and its jobs: how often each started, how often its success was told."""

    def __init__(self, here: StreamQ[Any]) -> None:
        self.here = here
        self.starts: Counter[int] = Counter()
        self.ends: Counter[str] = Counter()
        self.jobs: dict[int, Any] = {}
        self._task: Task[..., Any] = here.task(name="work")(self.work)
        here.on("job.succeeded")(self.ended)

    async def work(self, number: int) -> int:
        self.starts[number] += 1
        await asyncio.sleep(0.01)
        return number

    def ended(self, event: Any) -> None:
        self.ends[event.job_id] += 1

    async def produce(self) -> None:
        for number in range(1_000_000):
            self.jobs[number] = await self._task.enqueue(number)
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        producer = asyncio.create_task(self.produce())
        try:
            yield
        finally:
            producer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producer

    async def more(self, count: int) -> None:
        goal = len(self.ends) + count
        await until(lambda: len(self.ends) >= goal, 20)


async def test_redis_is_killed_and_comes_back_under_load(server: Redis) -> None:
    server.start()
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    load = Load(here)
    async with here, here.worker(concurrency=20), here.worker(concurrency=20):
        async with load.running():
            for _ in range(2):
                await load.more(100)
                server.kill()
                await asyncio.sleep(0.5)  # how long it is away
                await asyncio.to_thread(server.start)
            await load.more(100)
        results = await asyncio.gather(*(job.result(timeout=10) for job in load.jobs.values()))
        assert results == list(load.jobs)
        await here.events.drain()
        assert {load.ends[job.id] for job in load.jobs.values()} == {1}
        again = {number: count for number, count in load.starts.items() if count > 1}
        assert len(again) <= 0.02 * len(load.jobs), again


async def test_everything_is_flushed_under_load(server: Redis) -> None:
    server.start()
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    load = Load(here)
    async with here, here.worker(concurrency=20):
        async with redis.asyncio.Redis.from_url(server.url) as operator, load.running():
            await load.more(50)
            for _ in range(3):
                await operator.flushall()
                before = len(load.jobs)
                await load.more(50)
            await until(lambda: len(load.jobs) > before + 50)
        after = [job for number, job in load.jobs.items() if number > before]
        numbers = [number for number in load.jobs if number > before]
        assert await asyncio.gather(*(job.result(timeout=10) for job in after)) == numbers
        await here.events.drain()
        assert max(load.ends.values()) == 1


async def test_a_flush_while_nothing_happens(server: Redis) -> None:
    server.start()
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    load = Load(here)
    async with here, here.worker(concurrency=20) as worker:
        assert worker.crew is not None
        await until(lambda: worker.crew.slots.listening == 1)
        async with redis.asyncio.Redis.from_url(server.url) as operator:
            await operator.flushall()
        job = await load._task.enqueue(1)
        assert await job.result(timeout=2) == 1
        assert await here.broker.queues() == ["default"]


async def test_scripts_are_forgotten_again_and_again(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    server.start()
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    load, forgotten = Load(here), 0
    caplog.set_level(logging.WARNING)
    async with here, here.worker(concurrency=20):
        async with redis.asyncio.Redis.from_url(server.url) as operator, load.running():
            while forgotten < 20:
                await operator.script_flush("SYNC")  # type: ignore[arg-type]
                forgotten += 1
                await asyncio.sleep(0.05)  # how often
        results = await asyncio.gather(*(job.result(timeout=10) for job in load.jobs.values()))
        assert results == list(load.jobs)
    assert caplog.text == ""
    assert len(results) > 100
    assert set(load.starts.values()) == {1}


async def test_a_worker_waits_for_redis_at_its_start(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    load = Load(here)
    worker = here.worker()
    with caplog.at_level(logging.WARNING, "streamq"):
        running = asyncio.create_task(worker.run())
        await until(lambda: len(caplog.records) >= 2)
        assert all("cannot reach" in each.message and "next try in" in each.message for each in caplog.records)
        assert len({each.message for each in caplog.records}) == len(caplog.records)
    await asyncio.to_thread(server.start)
    assert await (await load._task.enqueue(7)).result(timeout=20) == 7
    worker.stop()
    await asyncio.wait_for(running, 5)
    await here.close()


async def test_a_worker_that_never_found_redis_can_be_stopped(server: Redis) -> None:
    here: StreamQ[Any] = StreamQ(server.url, lease="1s")
    worker = here.worker()
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.stop()
    await asyncio.wait_for(running, 6)
    await here.close()
