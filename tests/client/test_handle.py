"""A job in the hand: its states, its result, its end, over every kind of server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from streamq import (
    ConfigurationError,
    DeadLetter,
    Job,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    MaxRetriesExceeded,
    ResultTimeout,
    State,
    StreamQ,
    as_completed,
    gather,
)
from streamq.broker import wire
from streamq.core.job import Progress, Reason
from streamq.core.outcome import Complete
from tests.client.byhand import ERROR, Hand, record

MakeApp = Callable[..., StreamQ[Any]]


@dataclass
class Point:
    x: int


def shop(app: MakeApp, **settings: Any) -> StreamQ[Any]:
    made = app(**settings)

    @made.task(name="locate")
    async def locate(x: int) -> Point:
        return Point(x)

    return made


async def enqueue(app: StreamQ[Any], x: int = 1, **options: Any) -> Job[Any]:
    return await app.tasks["locate"].using(**options).enqueue(x)


async def test_the_states_of_a_life(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    job = await enqueue(shop_app)
    assert await job.status() is State.QUEUED
    (delivery,) = await hand.take()
    assert await job.status() is State.STARTED
    assert not await job.ready()
    info = await job.info()
    assert (info.state, info.task, info.queue, info.worker, info.attempts) == (
        State.STARTED, "locate", "default", "hand", 1,
    )  # fmt: skip
    await hand.succeed(delivery, {"x": 4})
    assert await job.status() is State.SUCCESS
    info = await job.info()
    assert (info.run, info.wait, info.worker, info.priority) == (2.0, 1.0, "w1", 0)
    assert await job.result() == Point(4)
    assert await shop_app.job(job.id).result() == {"x": 4}
    assert await shop_app.job(job.id, "default").status() is State.SUCCESS


@pytest.mark.parametrize("state", [State.RETRY, State.SCHEDULED, State.PENDING])
async def test_jobs_that_wait_again(app: MakeApp, state: State) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    job = await enqueue(shop_app)
    await hand.postpone((await hand.take())[0], state)
    info = await job.info()
    assert (info.state, info.due is not None) == (state, True)


async def test_progress(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    job = await enqueue(shop_app)
    (delivery,) = await hand.take()
    assert await job.progress() is None
    await shop_app.broker.set_progress("default", job.id, wire.encode_progress(Progress(3, 4, "page")))
    progress = await job.progress()
    assert progress is not None
    assert (progress.done, progress.fraction, progress.note) == (3, 0.75, "page")
    await hand.succeed(delivery)


async def test_results_are_waited_for(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    job = await enqueue(shop_app)
    with pytest.raises(ResultTimeout):
        await job.result(timeout="10ms")
    waiting = asyncio.ensure_future(job.result(timeout=10))
    await hand.succeed((await hand.take())[0], {"x": 2})
    assert await waiting == Point(2)


async def test_a_failure_carries_the_remote_traceback(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    job = await enqueue(shop_app)
    await hand.bury((await hand.take())[0])
    with pytest.raises(JobFailed, match=r"builtins.ValueError: no\n\nOn the worker w1:\nTraceback: line 7") as caught:
        await job.result()
    assert not isinstance(caught.value, MaxRetriesExceeded)
    assert (caught.value.job_id, caught.value.error) == (job.id, "builtins.ValueError")
    assert isinstance(await job.result(raises=False), JobFailed)
    info = await job.info()
    assert (info.error, info.failures, info.reason) == (ERROR, [ERROR], "failed")


async def test_other_ends(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    ends = {
        State.CANCELLED: (JobCancelled, record(State.CANCELLED, reason="why not")),
        State.EXPIRED: (JobExpired, record(State.EXPIRED)),
        State.FAILURE: (MaxRetriesExceeded, record(State.FAILURE, error=ERROR, reason="exhausted")),
    }
    for state, (error, end) in ends.items():
        job = await enqueue(shop_app)
        await hand.settle((await hand.take())[0], Complete(end, 60_000))
        assert await job.status() is state
        with pytest.raises(error):
            await job.result()


async def test_unknown_jobs(app: MakeApp) -> None:
    shop_app = shop(app)
    job = shop_app.job("nobody")
    for ask in (job.status, job.info, job.progress, job.cancel, job.result):
        with pytest.raises(JobNotFound, match="nobody"):
            await ask()
    with pytest.raises(JobNotFound):
        await shop_app.job("nobody", "default").result(timeout=5)


async def test_a_job_is_found_in_a_queue_that_only_others_use(app: MakeApp) -> None:
    ours, theirs = shop(app), shop(app)
    job = await enqueue(theirs, queue="theirs")
    found = ours.job(job.id)
    assert await found.status() is State.QUEUED
    assert found.queue == "theirs"
    await found.cancel()


async def test_cancel(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    waiting, delayed, running = (
        await enqueue(shop_app, priority=0),
        await enqueue(shop_app, countdown="1h"),
        await enqueue(shop_app, priority=9),
    )
    (delivery,) = await hand.take(1)
    assert delivery.job_id == running.id
    assert await waiting.cancel("not needed") == "cancelled"
    assert await delayed.cancel() == "cancelled"
    with pytest.raises(JobCancelled, match="was cancelled: not needed") as caught:
        await waiting.result()
    assert caught.value.reason == "not needed"
    assert (await waiting.info()).task == "locate"
    assert await running.cancel("stop") == "cancelling"
    info = await running.info()
    assert (info.state, info.cancelling, info.reason) == (State.STARTED, True, "stop")
    await hand.succeed(delivery)
    assert [await each.cancel() for each in (waiting, delayed, running)] == ["finished"] * 3
    assert await hand.take() == []


async def test_several_jobs(app: MakeApp) -> None:
    shop_app = shop(app)
    hand = Hand(shop_app)
    jobs = [await enqueue(shop_app, i) for i in range(3)]
    deliveries = {each.job_id: each for each in await hand.take()}
    order: list[str] = []

    async def listen() -> None:
        async for job in as_completed(jobs, timeout=10):
            order.append(job.id)
            if len(order) < 3:
                await hand.succeed(deliveries[jobs[2 - len(order)].id], {"x": 0})

    await hand.bury(deliveries[jobs[2].id])
    await listen()
    assert order == [job.id for job in reversed(jobs)]
    assert await gather(*jobs[:2]) == [Point(0), Point(0)]
    with pytest.raises(JobFailed):
        await gather(*jobs)
    mixed = await gather(*jobs, return_exceptions=True)
    assert [type(each) for each in mixed] == [Point, Point, JobFailed]


async def test_waiting_for_several_ends_in_time(app: MakeApp) -> None:
    shop_app = shop(app)
    job = await enqueue(shop_app)
    with pytest.raises(ResultTimeout, match="1 of the jobs"):
        await anext(as_completed([job], timeout=0.01))
    with pytest.raises(ResultTimeout):
        await gather(job, timeout=0.01)
    await job.cancel()


async def test_dead_letters(app: MakeApp) -> None:
    shop_app = shop(app)
    hand, dead = Hand(shop_app), shop_app.dead_letters()
    jobs = [await enqueue(shop_app, i) for i in range(4)]
    *readable, last = await hand.take()
    for delivery in readable:
        await hand.bury(delivery)
    await hand.bury(last, Reason.UNREADABLE)
    assert {letter.job_id for letter in await dead.list()} == {job.id for job in jobs}
    assert len(await dead.list(limit=2)) == 2
    assert len(await dead.list(task="loc*")) == 3
    assert await dead.list(error="KeyError") == []
    assert (len(await dead.list(older_than="1w")), await dead.list(older_than="1000w")) == (4, [])
    assert (await dead.show(jobs[0].id)).reason is Reason.FAILED
    assert await dead.retry(jobs[0].id) == 1
    assert await jobs[0].status() is State.QUEUED
    info = await jobs[0].info()
    assert (info.retries, info.failures) == (0, [])
    with pytest.raises(JobError, match="could not be read"):
        await dead.retry(jobs[3].id)
    assert await dead.retry() == 2
    assert [letter.job_id for letter in await dead.list()] == [jobs[3].id]
    assert await dead.discard(error="nothing like it") == 0
    assert await dead.discard() == 1
    for ask in (dead.show, dead.retry, dead.discard):
        with pytest.raises(JobNotFound, match="dead letters of 'default'"):
            await ask(jobs[3].id)
    for delivery in await hand.take():
        await hand.succeed(delivery)


async def test_many_dead_letters_are_treated_in_pages(app: MakeApp) -> None:
    shop_app = shop(app)
    hand, dead = Hand(shop_app), shop_app.dead_letters()
    task = shop_app.tasks["locate"]
    await shop_app.enqueue_many(task.s(i) for i in range(230))
    for index, delivery in enumerate(await hand.take(230)):
        await hand.bury(delivery, Reason.FAILED if index % 2 else Reason.UNREADABLE)
    assert len(await dead.list(limit=1000)) == 230
    assert await dead.retry() == 115
    assert await dead.discard() == 115
    for delivery in await hand.take(230):
        await hand.succeed(delivery)


async def test_letters_that_somebody_else_takes_meanwhile_hide_none(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.client.dead.PAGE", 2)
    shop_app, other = shop(app), shop(app)
    hand = Hand(shop_app)
    for i in range(4):
        await enqueue(shop_app, i)
    for delivery in await hand.take():
        await hand.bury(delivery)
    dead, read = shop_app.broker.dead, 0

    async def taken_once_read(queue: str, *, offset: int = 0, limit: int = 100) -> list[DeadLetter]:
        nonlocal read
        page = await dead(queue, offset=offset, limit=limit)
        read += 1
        if read == 1:
            for letter in page:
                await other.dead_letters().discard(letter.job_id)
        return page

    monkeypatch.setattr(shop_app.broker, "dead", taken_once_read)
    assert await shop_app.dead_letters().discard() == 2
    assert await other.dead_letters().list() == []


async def test_waiting_for_several_leaves_nothing_behind(app: MakeApp) -> None:
    shop_app = shop(app)
    job = await enqueue(shop_app)
    before = asyncio.all_tasks()
    with pytest.raises(ConfigurationError):
        await anext(as_completed([job], timeout="soon"))
    assert asyncio.all_tasks() == before
    unknown = shop_app.job("nobody", "default")
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    jobs = as_completed([unknown])
    assert await anext(jobs) is unknown
    await jobs.aclose()  # type: ignore[attr-defined]
    gc.collect()
    assert problems == []
    await job.cancel()


async def test_a_queue_tells_its_size(app: MakeApp) -> None:
    shop_app = shop(app)
    jobs = [await enqueue(shop_app), await enqueue(shop_app, priority=3), await enqueue(shop_app, countdown=60)]
    info = await shop_app.queue().info()
    assert (info.name, info.queued, info.running, info.scheduled, info.dead) == ("default", 2, 0, 1, 0)
    assert await shop_app.queue().workers() == []
    for job in jobs:
        await job.cancel()


async def test_a_job_that_was_looked_up_gives_the_annotated_type(app: MakeApp) -> None:
    shop_app = shop(app)
    async with shop_app, shop_app.worker():
        job = await enqueue(shop_app, 3)
        assert await job.result(timeout=10) == Point(3)
        assert await shop_app.job(job.id).result(timeout=10) == Point(3)
        stranger = app()
        assert await stranger.job(job.id, "default").result(timeout=10) == {"x": 3}


async def test_threads_can_ask_all_that_a_loop_can(app: MakeApp) -> None:
    shop_app = shop(app)
    await shop_app.open()
    job = await enqueue(shop_app, 3)

    def view() -> tuple[State, str, Progress | None, str]:
        mine = shop_app.job(job.id)
        return mine.status_sync(), mine.info_sync().task, mine.progress_sync(), mine.cancel_sync("no more").value

    assert await asyncio.to_thread(view) == (State.QUEUED, "locate", None, "cancelled")
    with pytest.raises(JobCancelled, match="no more"):
        await asyncio.to_thread(job.result_sync, 5)
