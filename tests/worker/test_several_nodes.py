"""One worker serves queues that are on three masters of a cluster: whatever it does for one, it does for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from streamq import JobCancelled, State, StreamQ, current
from streamq.broker.history import BEGINNING, Feed, Transition, TransitionKind
from streamq.client.waiting import gather
from tests.conftest import PROGRAMS
from tests.topologies import ClusterSet
from tests.worker.spread import left_over, spread
from tests.worker.waits import until

pytestmark = pytest.mark.sets

QUICK, *OTHERS = PROGRAMS
KINDS = [QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSet]:
    with ClusterSet(request.param) as cluster:
        yield cluster


@pytest.fixture
def queues(cluster: ClusterSet, namespace: str) -> list[str]:
    names = spread(cluster, namespace)
    assert len(names) == 3
    return names


@pytest.fixture(autouse=True)
def no_key_is_left(cluster: ClusterSet, namespace: str) -> Iterator[None]:
    yield
    assert list(left_over(cluster, namespace)) == []


@pytest.fixture
async def app(cluster: ClusterSet, queues: list[str], namespace: str) -> AsyncIterator[StreamQ[Any]]:
    app: StreamQ[Any] = StreamQ(cluster.url, namespace=namespace, lease="1s")

    @app.task(name="add")
    async def add(one: int, two: int) -> int:
        return one + two

    @app.task(name="hold")
    async def hold() -> None:
        ctx = current()
        assert ctx is not None
        await ctx.progress(3, 10, "half way")
        await asyncio.sleep(60)

    for name in queues:

        @app.every(0.5, name=f"tick {name}", queue=name)
        @app.task(name=f"tick {name}", queue=name)
        async def tick() -> None: ...

    async with app:
        yield app


async def test_results_come_from_everywhere(app: StreamQ[Any], queues: list[str]) -> None:
    async with app.worker(queues=queues, concurrency=10):
        add = app.tasks["add"]
        jobs = [await add.using(queue=name).enqueue(number, 1) for name in queues for number in range(20)]
        assert await gather(*jobs, timeout=20) == [n + 1 for n in range(20)] * 3
        many = await app.enqueue_many(add.s(number, 2).using(queue=name) for name in queues for number in range(20))
        assert await gather(*many, timeout=20) == [n + 2 for n in range(20)] * 3


async def test_delayed_jobs_start_when_they_are_due(app: StreamQ[Any], queues: list[str]) -> None:
    async with app.worker(queues=queues):
        began = time.monotonic()
        jobs = [await app.tasks["add"].using(queue=name, countdown=0.4).enqueue(1, 1) for name in queues]
        assert {await job.status() for job in jobs} == {State.SCHEDULED}
        assert await gather(*jobs, timeout=10) == [2, 2, 2]
        assert time.monotonic() - began >= 0.4


async def test_schedules_fire_in_each(app: StreamQ[Any], queues: list[str]) -> None:
    async with app.worker(queues=queues):
        for name in queues:
            queue = app.queue(name)

            async def ticked(queue: Any = queue) -> bool:
                return len(await queue.history(kinds=[TransitionKind.SUCCEEDED])) >= 2

            await until(ticked)


async def test_jobs_are_cancelled_where_they_run_and_where_they_wait(app: StreamQ[Any], queues: list[str]) -> None:
    async with app.worker(queues=queues):
        running = [await app.tasks["hold"].using(queue=name).enqueue() for name in queues]
        waiting = [await app.tasks["add"].using(queue=name, countdown=60).enqueue(1, 1) for name in queues]
        for job in running:

            async def started(job: Any = job) -> bool:
                return (await job.progress()) is not None

            await until(started)
            progress = await job.progress()
            assert progress is not None
            assert (progress.done, progress.total, progress.note) == (3, 10, "half way")
        for job in [*running, *waiting]:
            await job.cancel("enough")
            with pytest.raises(JobCancelled, match="enough"):
                await job.result(timeout=10)


async def test_one_queue_is_paused_and_the_others_go_on(app: StreamQ[Any], queues: list[str]) -> None:
    paused, *others = queues
    async with app.worker(queues=queues) as worker:
        await app.queue(paused).pause("for a while")
        assert worker.crew is not None
        lane = worker.crew.lanes[paused]
        await until(lambda: lane.paused)  # it hears of it on another server, over the bus of the cluster
        held = await app.tasks["add"].using(queue=paused).enqueue(1, 1)
        for name in others:
            assert await (await app.tasks["add"].using(queue=name).enqueue(1, 1)).result(timeout=10) == 2
        assert await held.status() is State.QUEUED
        await app.queue(paused).resume()
        assert await held.result(timeout=10) == 2


async def test_what_happens_is_told_of_all(app: StreamQ[Any], queues: list[str]) -> None:
    seen: list[Transition] = []

    async def follow() -> None:
        async with (
            aclosing(Feed(app.broker, dict.fromkeys(queues, BEGINNING))) as feed,
            aclosing(feed.follow()) as pages,
        ):
            async for page in pages:
                seen.extend(page)

    jobs = [await app.tasks["add"].using(queue=name).enqueue(1, 1) for name in queues]
    following = asyncio.create_task(follow())
    async with app.worker(queues=queues):
        assert await gather(*jobs, timeout=10) == [2, 2, 2]
        done = {(name, job.id, TransitionKind.SUCCEEDED) for name, job in zip(queues, jobs, strict=True)}
        await until(lambda: done <= {(each.queue, each.job_id, each.kind) for each in seen}, 20)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_what_a_dead_worker_held_is_taken_over_in_each(app: StreamQ[Any], queues: list[str]) -> None:
    jobs = [await app.tasks["add"].using(queue=name).enqueue(1, 1) for name in queues]
    for name in queues:
        await app.broker.prepare(name)
        assert (await app.broker.turn(name, "dead", [], 1, request=1)).deliveries
    async with app.worker(queues=queues):
        assert await gather(*jobs, timeout=10) == [2, 2, 2]
    for name in queues:
        assert await app.queue(name).history(kinds=[TransitionKind.TAKEN_OVER])
