"""Several queues in one worker: what goes wrong with one is not felt by the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import redis

from streamq import StreamQ
from streamq.errors import BrokerError, BrokerUnavailable
from tests.conftest import PROGRAMS, MakeApp
from tests.topologies import ClusterSet, Node
from tests.worker.waits import until


async def echo(text: str, rest: float = 0.0) -> str:
    await asyncio.sleep(rest)
    return text


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_foreign_key_in_the_place_of_a_stream_stops_one_queue_until_it_is_gone(
    app: MakeApp, url: str, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    here = app(lease="1s")
    task = here.task(echo)
    stream = here.broker.keys("broken").stream(0)
    with redis.Redis.from_url(url) as client:
        async with here, here.worker(queues=["broken", "sound"], concurrency=concurrency):
            assert await (await task.using(queue="broken").enqueue("a")).result(timeout=10) == "a"
            client.delete(stream)
            client.set(stream, "not a stream")
            await until(lambda: any(r.levelno == logging.ERROR and "WRONGTYPE" in r.message for r in caplog.records))
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                await task.using(queue="broken").enqueue("refused")
            # Longer than a lease: the heartbeat of the sound queue goes on too.
            jobs = [await task.using(queue="sound").enqueue(f"{n}", 1.2 * (n == 0)) for n in range(20)]
            assert [await job.result(timeout=10) for job in jobs] == [f"{n}" for n in range(20)]
            assert [(await job.info()).attempts for job in jobs] == [1] * 20
            client.delete(stream)
            assert await (await task.using(queue="broken").enqueue("again")).result(timeout=15) == "again"


@pytest.fixture
async def partial() -> AsyncIterator[ClusterSet]:
    """Where one master that is gone takes its own slots along, and no others."""
    on_disk = {"appendonly": "yes", "appendfsync": "always"}
    async with ClusterSet(next(iter(PROGRAMS)), full_coverage=False, config=on_disk) as servers:
        yield servers


def queues_of(servers: ClusterSet, namespace: str) -> dict[Node, str]:
    """A queue of each master."""
    found: dict[Node, str] = {}
    for name in map("q{}".format, range(100)):
        found.setdefault(servers.owner(f"{{{namespace}/{name}}}"), name)
    return found


@pytest.mark.sets
async def test_a_master_that_is_gone_stops_its_own_queues(partial: ClusterSet, namespace: str) -> None:
    queues = await asyncio.to_thread(queues_of, partial, namespace)
    listed = await asyncio.to_thread(partial.owner, f"{{{namespace}}}")  # the list of queues is there
    assert len(queues) == 3
    gone = queues.pop(listed)
    one, other = queues.values()

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    def make() -> StreamQ[None]:
        here: StreamQ[None] = StreamQ(partial.url, namespace=namespace, lease="1s", timeout=1.0)
        here.task(name="echo")(echo)
        here.every("1s", queue=one, name="ticks")(tick)
        return here

    here = make()
    async with here, here.worker(queues=[gone, one, other], concurrency=3):
        task = here.tasks["echo"]
        for queue in (gone, one):
            assert await (await task.using(queue=queue).enqueue(queue)).result(timeout=10) == queue
        held = await task.using(queue=gone).enqueue("held", 2.0)
        await asyncio.to_thread(listed.kill)
        with pytest.raises(BrokerUnavailable):
            await task.using(queue=gone).enqueue("refused")
        before = ticks
        # `other` is new to this application, and cannot be entered in the list of queues.
        jobs = [await task.using(queue=q).enqueue(f"{n}", 1.2 * (n == 0)) for n in range(10) for q in (one, other)]
        assert [await job.result(timeout=10) for job in jobs] == [f"{n}" for n in range(10) for _ in range(2)]
        assert [(await job.info()).attempts for job in jobs] == [1] * 20
        await until(lambda: ticks > before)

        second = make()
        async with second, second.worker(queues=[gone, one]):  # started while it is away
            job = await second.tasks["echo"].using(queue=one).enqueue("second")
            assert await job.result(timeout=10) == "second"
        await asyncio.to_thread(listed.start)
        await asyncio.to_thread(partial.settle)
        job = await task.using(queue=gone).enqueue("again")
        assert await job.result(timeout=20) == "again"
        assert await held.result(timeout=20) == "held"
