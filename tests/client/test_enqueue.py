"""Enqueue, over every kind of server: each way in, routed, once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamq import (
    Call,
    ConfigurationError,
    Event,
    IdempotencyMismatch,
    InvalidArguments,
    Job,
    Middleware,
    PayloadTooLarge,
    State,
    StreamQ,
)
from streamq.broker import wire
from tests.client.byhand import Hand

MakeApp = Callable[..., StreamQ[Any]]


def shop(app: MakeApp, **settings: Any) -> StreamQ[Any]:
    made = app(**settings)

    @made.task(name="add")
    async def add(x: int, y: int = 0) -> int:
        return x + y

    return made


async def taken(app: StreamQ[Any], queue: str = "default") -> list[tuple[str, Any, Any]]:
    hand = Hand(app, queue)
    jobs: list[tuple[str, Any, Any]] = []
    for delivery in await hand.take(1000):
        body = wire.decode_job(delivery.body, 1_000_000)
        jobs.append((delivery.job_id, wire.decode_value(body.args), wire.decode_value(body.kwargs)))
        await hand.succeed(delivery)
    return jobs


async def test_every_way_in(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    jobs = [
        await add.enqueue(1, y=2),
        await add.delay(2),
        await add.apply_async((3,), {"y": 4}),
        await add.using(headers={"a": "b"}).enqueue(4),
        await add.s(5).enqueue(),
        await shop_app.enqueue("add", 6),
        await shop_app.enqueue(add, 7),
        await shop_app.send_task("add", [8], {"y": 1}),
        *await shop_app.enqueue_many([add.s(9)]),
    ]
    expected = [
        ([1], {"y": 2}),
        ([2], {}),
        ([3], {"y": 4}),
        ([4], {}),
        ([5], {}),
        ([6], {}),
        ([7], {}),
        ([8], {"y": 1}),
        ([9], {}),
    ]
    assert await taken(shop_app) == [(job.id, *call) for job, call in zip(jobs, expected, strict=True)]


async def test_bad_calls_fail_here_and_write_nothing(app: MakeApp) -> None:
    shop_app = shop(app, max_payload=1000)
    add: Any = shop_app.tasks["add"]
    with pytest.raises(InvalidArguments, match="'x'"):
        await add.enqueue()
    with pytest.raises(InvalidArguments, match="argument 'x'"):
        await add.enqueue(object())
    with pytest.raises(PayloadTooLarge, match="arguments of add"):
        await add.enqueue("x" * 1001)
    with pytest.raises(InvalidArguments, match=r"write args=\('x',\)"):
        await add.apply_async("x")
    with pytest.raises(ConfigurationError, match="Did you mean queue"):
        await add.apply_async((1,), quue="x")
    assert await shop_app.broker.queues() == []


async def test_a_task_that_is_not_here_is_enqueued_by_name(app: MakeApp) -> None:
    shop_app = app(routes={"far.*": "far"})
    job = await shop_app.send_task("far.away", (1,), {"z": 2}, priority=3)
    assert job.queue == "far"
    assert await taken(shop_app, "far") == [(job.id, [1], {"z": 2})]


async def test_many_are_sent_in_chunks_and_keep_their_order(app: MakeApp) -> None:
    shop_app = shop(app, routes={"far": "far"})
    add: Any = shop_app.tasks["add"]

    async def signatures() -> Any:
        for i in range(25):
            yield add.s(i) if i % 5 else add.s(i).using(queue="other")

    jobs = await shop_app.enqueue_many(signatures(), chunk=10)
    assert len(jobs) == 25
    assert [each[1] for each in await taken(shop_app)] == [[i] for i in range(25) if i % 5]
    assert [each[0] for each in await taken(shop_app, "other")] == [jobs[i].id for i in range(0, 25, 5)]
    assert await shop_app.enqueue_many([]) == []
    with pytest.raises(ConfigurationError, match="chunk=0"):
        await shop_app.enqueue_many([], chunk=0)


async def test_a_bad_call_among_many_leaves_the_chunks_before_it(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    with pytest.raises(InvalidArguments):
        await shop_app.enqueue_many((add.s(i) if i < 7 else add.s() for i in range(10)), chunk=3)
    assert [each[1] for each in await taken(shop_app)] == [[i] for i in range(6)]


async def test_concurrent_calls_share_round_trips(app: MakeApp) -> None:
    shop_app = shop(app)
    await shop_app.open()
    flights: list[int] = []
    add = shop_app.broker.add

    async def counted(queue: str, jobs: Any, **options: Any) -> Any:
        flights.append(len(jobs))
        return await add(queue, jobs, **options)

    shop_app.broker.add = counted  # type: ignore[method-assign]
    task: Any = shop_app.tasks["add"]
    jobs = await asyncio.gather(*(task.enqueue(i) for i in range(100)))
    assert len({job.id for job in jobs}) == 100
    assert (sum(flights), len(flights) <= 2) == (100, True)
    assert [each[1] for each in await taken(shop_app)] == [[i] for i in range(100)]


async def test_an_idempotency_key_makes_one_job(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    first = await add.using(idempotency_key="k").enqueue(1)
    again = await add.using(idempotency_key="k").enqueue(1)
    assert (first.deduplicated, again.deduplicated, again.id) == (False, True, first.id)
    with pytest.raises(IdempotencyMismatch, match="other arguments") as caught:
        await add.using(idempotency_key="k").enqueue(2)
    assert caught.value.job_id == first.id
    assert len(await taken(shop_app)) == 1
    assert (await add.using(idempotency_key="k").enqueue(1)).id == first.id


async def test_an_own_job_id_makes_one_job(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    jobs = [await add.using(job_id="mine").enqueue(1) for _ in range(2)]
    assert [(job.id, job.deduplicated) for job in jobs] == [("mine", False), ("mine", True)]
    assert len(await taken(shop_app)) == 1


async def test_delayed_jobs_wait(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    eta = datetime.now(UTC) + timedelta(hours=1)
    for job in (await add.using(countdown="1h").enqueue(1), await add.using(eta=eta).enqueue(2)):
        assert await job.status() is State.SCHEDULED
        due = (await job.info()).due
        assert due is not None
        assert abs(due - eta) < timedelta(seconds=30)
    assert await taken(shop_app) == []


async def test_the_send_side_stands_around_every_call(app: MakeApp) -> None:
    class Stamp(Middleware):
        async def send(self, call: Call, proceed: Callable[[], Any]) -> Any:
            call.kwargs["y"] = 100
            job = await proceed()
            assert isinstance(job, Job)
            return job

    shop_app = shop(app, middleware=[Stamp()])
    add: Any = shop_app.tasks["add"]
    await add.enqueue(1)
    await shop_app.enqueue_many([add.s(2), add.s(3)])
    assert [each[1:] for each in await taken(shop_app)] == [([i], {"y": 100}) for i in (1, 2, 3)]


async def test_enqueueing_is_an_event(app: MakeApp) -> None:
    shop_app = shop(app)
    heard: list[Event] = []
    shop_app.on("job.enqueued")(heard.append)
    add: Any = shop_app.tasks["add"]
    job = await add.enqueue(1)
    late = await add.using(countdown=60, idempotency_key="k").enqueue(1)
    await add.using(countdown=60, idempotency_key="k").enqueue(1)
    assert [(e.job_id, e.task, e.state) for e in heard] == [
        (job.id, "add", State.QUEUED),
        (late.id, "add", State.SCHEDULED),
    ]


async def test_an_application_belongs_to_one_loop_and_can_be_opened_again(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    await add.enqueue(1)
    with pytest.raises(ConfigurationError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(add.enqueue(2)))
    await shop_app.close()
    async with shop_app:
        await add.enqueue(3)
    assert [each[1] for each in await taken(shop_app)] == [[1], [3]]


async def test_sync_calls_from_threads_and_from_the_loop(app: MakeApp) -> None:
    shop_app = shop(app)
    add: Any = shop_app.tasks["add"]
    jobs = [add.enqueue_sync(0), add.using(priority=1).enqueue_sync(1)]
    jobs += await asyncio.gather(*(asyncio.to_thread(add.enqueue_sync, i) for i in range(2, 10)))
    hand = Hand(shop_app)
    for delivery in await hand.take(100):
        await hand.succeed(delivery, 7)
    assert [job.result_sync(timeout=5) for job in jobs] == [7] * 10
    assert [await job.result(timeout=5) for job in jobs] == [7] * 10
    assert [thread.name for thread in threading.enumerate() if thread.name == "streamq-sync"] == ["streamq-sync"]
    await shop_app.close()
    assert [thread.name for thread in threading.enumerate() if thread.name == "streamq-sync"] == []


def test_a_plain_script_enqueues_forks_and_ends(url: str, namespace: str) -> None:
    script = f"""
        import os
        from streamq import StreamQ
        app = StreamQ({url!r}, namespace={namespace!r})

        @app.task(name="add")
        def add(x, y): ...

        print(add.enqueue_sync(1, 2).queue, flush=True)
        if (child := os.fork()) == 0:
            print(add.enqueue_sync(3, 4).queue, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(add.enqueue_sync(5, 6).queue)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout.split(), done.stderr) == (["default"] * 3, "")


def test_one_embedded_server_for_both_ways_in() -> None:
    shop_app = StreamQ[Any]("embedded://")

    @shop_app.task(name="add")
    def add(x: int) -> None: ...

    async def main() -> int:
        job = add.enqueue_sync(1)
        async with shop_app:
            assert await job.status() is State.QUEUED
            return (await shop_app.queue().info()).queued

    assert asyncio.run(main()) == 1
