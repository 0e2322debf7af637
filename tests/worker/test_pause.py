"""A paused queue: nothing starts, what runs goes on, and it resumes within a moment, whatever message is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamq import Context, State, StreamQ
from streamq.broker.broker import Turn
from streamq.core.job import Delivery
from streamq.core.outcome import Release
from streamq.worker import listener
from streamq.worker.bell import Bell
from streamq.worker.crew import Crew
from streamq.worker.lane import Lane
from streamq.worker.worker import Worker
from tests.conftest import MakeApp
from tests.worker.waits import one_server, until

QUEUE = "default"


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages on the bell are lost."""
    monkeypatch.setattr(Bell, "hear", lambda self, message: None)


def crew_of(worker: Worker) -> Crew:
    assert worker.crew is not None
    return worker.crew


def lane_of(worker: Worker) -> Lane:
    return crew_of(worker).lanes[QUEUE]


def listening(worker: Worker) -> bool:
    return crew_of(worker).slots.listening > 0


async def hears(app: StreamQ[Any], workers: int, queue: str = QUEUE) -> bool:
    """Whether so many have subscribed to the bell."""
    reply = await app.broker.command("PUBSUB", "NUMSUB", app.broker.bell(queue))
    return isinstance(reply, list) and reply[1] == workers


async def waits(app: StreamQ[Any], job_id: str) -> bool:
    """In its stream, and in no worker's hands."""
    return (await app.broker.find(QUEUE, job_id)).where == "stream"


async def test_nothing_starts_on_any_worker_and_then_everything(app: MakeApp) -> None:
    apps, attempts = [app() for _ in range(3)], list[int]()

    for each in apps:

        @each.task(name="note")
        async def note(ctx: Context[None]) -> None:
            attempts.append(ctx.attempt)

    async with AsyncExitStack() as stack:
        for each in apps:
            await stack.enter_async_context(each)
        workers = [await stack.enter_async_context(each.worker(concurrency=2)) for each in apps]
        await until(lambda: all(map(listening, workers)))
        await until(lambda: hears(apps[0], 3))
        queue = apps[0].queue()
        await queue.pause("maintenance")
        await until(lambda: all(lane_of(each).paused for each in workers))
        jobs = [await apps[0].enqueue("note") for _ in range(20)]
        # Each listener's read was under way: it brings a job, which is given back.
        await until(lambda: not any(map(listening, workers)))
        await until(lambda: all(lane_of(each).flushed for each in workers))
        assert attempts == []
        assert {await each.status() for each in jobs} == {State.QUEUED}
        info = await queue.info()
        assert (info.queued, info.running) == (20, 0)
        assert info.paused is not None
        assert info.paused.reason == "maintenance"
        assert await queue.resume() is True
        for job in jobs:
            await job.result(timeout=3)
    assert attempts == [1] * 20  # a job that bounced spent no attempt


async def test_a_worker_that_comes_to_a_paused_queue_takes_nothing(app: MakeApp) -> None:
    here, ran = app(), list[int]()

    @here.task
    async def note(number: int) -> None:
        ran.append(number)

    async with here:
        await here.queue().pause()
        jobs = [await note.enqueue(n) for n in range(3)]
        async with here.worker() as worker:
            await until(lambda: lane_of(worker).paused)
            assert await waits(here, jobs[0].id)
            assert ran == []
            await here.queue().resume()
            for job in jobs:
                await job.result(timeout=3)


async def test_what_runs_goes_on_and_keeps_its_lease(app: MakeApp) -> None:
    here, gate, attempts = app(lease="1s"), asyncio.Event(), list[int]()

    @here.task
    async def long(ctx: Context[None]) -> str:
        attempts.append(ctx.attempt)
        await gate.wait()
        return "done"

    async with here, here.worker() as worker:
        job = await long.enqueue()
        await until(lambda: bool(attempts))
        await here.queue().pause()
        await until(lambda: lane_of(worker).paused)
        await asyncio.sleep(1.5)  # a lease and a half
        gate.set()
        assert await job.result(timeout=3) == "done"
        assert attempts == [1]


async def test_what_waits_for_a_slot_is_given_back(app: MakeApp) -> None:
    here, gate, attempts = app(), asyncio.Event(), list[int]()

    @here.task
    async def long(ctx: Context[None]) -> None:
        attempts.append(ctx.attempt)
        await gate.wait()

    async with here:
        jobs = [await long.enqueue() for _ in range(4)]
        async with here.worker(concurrency=1, prefetch=5) as worker:
            await until(lambda: crew_of(worker).slots.waiting == 3)
            await until(lambda: hears(here, 1))
            await here.queue().pause()
            for job in jobs[1:]:
                await until(lambda job=job: waits(here, job.id))  # type: ignore[misc]
            gate.set()
            await jobs[0].result(timeout=3)
            assert attempts == [1]
            assert crew_of(worker).slots.empty
            await here.queue().resume()
            for job in jobs:
                await job.result(timeout=3)
        assert attempts == [1] * 4


async def test_what_waits_of_another_queue_stays(app: MakeApp) -> None:
    here, gate = app(), asyncio.Event()

    @here.task
    async def long() -> None:
        await gate.wait()

    async with here:
        jobs = [await long.using(queue=queue).enqueue() for queue in ("shut", "shut", "open", "open")]
        async with here.worker(queues=["shut", "open"], concurrency=1, prefetch=3) as worker:
            await until(lambda: crew_of(worker).slots.waiting == 3)
            await until(lambda: hears(here, 1, "shut"))
            lanes, slots = crew_of(worker).lanes, crew_of(worker).slots
            left = [each for each in lanes["open"].held.values() if each.task is None]
            await here.queue("shut").pause()
            await until(lambda: slots.waiting < 3)
            assert slots.waiting == len(left)
            assert not any(each.done for each in left)
            await here.queue("shut").resume()
            gate.set()
            for job in jobs:
                await job.result(timeout=3)


async def test_delayed_jobs_come_due_meanwhile(app: MakeApp) -> None:
    here = app()

    @here.task
    async def nothing() -> None: ...

    async with here, here.worker():
        await here.queue().pause()
        job = await nothing.using(countdown=0.05).enqueue()
        await until(lambda: waits(here, job.id))
        await here.queue().resume()
        await job.result(timeout=3)


@pytest.mark.usefixtures("deaf")
async def test_a_lost_message_lets_few_jobs_through(app: MakeApp) -> None:
    """Those that blocking reads bring until the first turn after them is answered."""
    here, ran = app(), list[int]()

    @here.task
    async def note(number: int) -> None:
        ran.append(number)

    async with here, here.worker() as worker:
        await until(lambda: listening(worker))
        await here.queue().pause()
        jobs = await here.enqueue_many(note.s(n) for n in range(300))
        await until(lambda: lane_of(worker).paused)
        await until(lambda: lane_of(worker).flushed)
        assert 1 <= len(ran) < 30
        assert await waits(here, jobs[-1].id)
        await here.queue().purge()
        await here.queue().resume()


async def test_a_pause_while_the_bell_was_cut_off_is_seen_when_it_is_back(app: MakeApp) -> None:
    here = app()
    async with here, here.worker() as worker:
        await until(lambda: hears(here, 1))
        await until(lambda: listening(worker))
        await here.broker.command("CLIENT", "KILL", "TYPE", "pubsub")
        await here.queue().pause()
        await until(lambda: lane_of(worker).paused, within=3)


@pytest.mark.usefixtures("deaf")
async def test_if_the_end_of_the_pause_is_not_heard_the_next_look_finds_it(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LOOK_AGAIN", 0.2)
    here = app()

    @here.task
    async def nothing() -> None: ...

    async with here:
        given_back = await nothing.enqueue()
        await here.broker.prepare(QUEUE)
        (delivery,) = (await here.broker.turn(QUEUE, "hand", [], 1, request=1)).deliveries
        await here.queue().pause()
        async with here.worker() as worker:
            await until(lambda: lane_of(worker).paused)
            await here.broker.turn(QUEUE, "hand", [(delivery, Release())], 0, request=2)
            job = await nothing.enqueue()
            await here.queue().resume()
            await job.result(timeout=3)
            await given_back.result(timeout=3)  # the default lease is 30 s: the sweep was woken


async def test_an_answer_from_before_the_pause_does_not_end_it(app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    here, ran = app(), list[str]()
    answered, arrives = asyncio.Event(), asyncio.Event()

    @here.task
    async def note() -> None:
        ran.append("note")

    async with here:
        turn = here.broker.turn

        async def late(*args: Any, **more: Any) -> Turn:
            answer = await turn(*args, **more)
            if answer.deliveries:
                answered.set()
                await arrives.wait()
            return answer

        monkeypatch.setattr(here.broker, "turn", late)
        await here.queue().pause()
        job = await note.enqueue()
        async with here.worker() as worker:
            await until(lambda: hears(here, 1))
            await until(lambda: lane_of(worker).paused)
            await here.queue().resume()
            await answered.wait()
            await here.queue().pause()
            await until(lambda: lane_of(worker).paused)
            arrives.set()
            await until(lambda: waits(here, job.id))
            assert lane_of(worker).paused
            assert ran == []
            await here.queue().resume()
            await job.result(timeout=3)


async def test_a_running_job_that_the_sweep_brings_again_is_not_given_away(app: MakeApp) -> None:
    here, gate, starts = app(), asyncio.Event(), list[int]()

    @here.task
    async def long(ctx: Context[None]) -> str:
        starts.append(ctx.attempt)
        await gate.wait()
        return "done"

    async with here, here.worker() as worker:
        job = await long.enqueue()
        await until(lambda: bool(starts))
        lane = lane_of(worker)
        (holding,) = lane.held.values()
        await until(lambda: hears(here, 1))
        await here.queue().pause()
        await until(lambda: lane.paused)
        # It was stopped for longer than a lease, took its own entry over, and heard of the pause before that answer.
        stream, entry = here.broker.keys(QUEUE).stream(0), holding.delivery.entry
        await here.broker.line("commands").call("XCLAIM", stream, "w", worker.name, 0, entry)
        lane.receive([Delivery(QUEUE, 0, entry, job.id, holding.delivery.body, 2)], time.monotonic())
        gate.set()
        assert await job.result(timeout=3) == "done"
        assert len(starts) == 1


async def test_a_job_that_comes_back_before_its_release_is_answered_is_not_lost(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, gate, attempts = app(), asyncio.Event(), list[int]()

    @here.task
    async def long(ctx: Context[None]) -> None:
        attempts.append(ctx.attempt)
        await gate.wait()

    async with here:
        jobs = [await long.enqueue() for _ in range(2)]
        async with here.worker(concurrency=1, prefetch=1) as worker:
            await until(lambda: crew_of(worker).slots.waiting == 1)
            turn, lane, swept = here.broker.turn, lane_of(worker), list[Delivery]()

            async def overtaken(queue: str, consumer: str, settlements: Any, want: int, **more: Any) -> Turn:
                answer = await turn(queue, consumer, settlements, want, **more)
                if settlements and not swept:
                    taken, _ = await here.broker.reclaim(queue, consumer, lease_ms=30_000, want=5, suspects=1)
                    swept.extend(taken)
                    lane.receive(taken, time.monotonic())
                return answer

            monkeypatch.setattr(here.broker, "turn", overtaken)
            lane.rule(True, time.monotonic())  # as if it had been paused, and resumed at once
            await until(lambda: len(swept) == 1)
            gate.set()
            for job in jobs:
                await job.result(timeout=3)
    assert attempts == [1, 1]


async def test_a_burst_worker_ends_and_says_what_it_leaves(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    here = app()

    @here.task
    async def nothing() -> None: ...

    async with here:
        job = await nothing.enqueue()
        other = await nothing.using(queue="open").enqueue()
        await here.queue().pause()
        with caplog.at_level(logging.WARNING, "streamq.worker"):
            await asyncio.wait_for(here.worker(queues=[QUEUE, "open"], burst=True).run(), 10)
        await other.result(timeout=1)
        assert await job.status() is State.QUEUED
    assert [each.message for each in caplog.records] == [
        "queue default is paused: this worker ends and leaves its jobs there"
    ]


@one_server
async def test_a_paused_queue_is_left_alone_while_others_are_busy(app: MakeApp) -> None:
    """A lane that nobody listens for looks often while slots are contended; a paused one has nothing to look for."""
    here, turns = app(), list[str]()

    @here.task
    async def brief() -> None:
        await asyncio.sleep(0.02)

    async with here:
        await here.queue("shut").pause()
        await brief.using(queue="shut").enqueue()
        async with here.worker(queues=["shut", "open"], concurrency=2) as worker:
            await until(lambda: crew_of(worker).lanes["shut"].paused)
            turn = here.broker.turn

            async def counted(queue: str, *args: Any, **more: Any) -> Turn:
                turns.append(queue)
                return await turn(queue, *args, **more)

            here.broker.turn = counted  # type: ignore[method-assign]
            jobs = [await brief.using(queue="open").enqueue() for _ in range(60)]
            for job in jobs:
                await job.result(timeout=10)
        assert turns.count("shut") <= 1
        assert turns.count("open") > 20
        await here.queue("shut").purge()


async def test_more_was_given_back_than_there_are_slots(app: MakeApp) -> None:
    here = app()  # the sweep that nobody wakes comes after an eighth of the lease, 30 s

    @here.task
    async def brief() -> None:
        await asyncio.sleep(0.02)

    async with here:
        jobs = [await brief.enqueue() for _ in range(4)]
        await here.broker.prepare(QUEUE)
        held = (await here.broker.turn(QUEUE, "hand", [], 4, request=1)).deliveries
        await here.broker.turn(QUEUE, "hand", [(each, Release()) for each in held], 0, request=2)
        async with here.worker(concurrency=1):
            for job in jobs:
                await job.result(timeout=2.5)


async def test_many_pauses_lose_nothing(app: MakeApp) -> None:
    here, seen = app(), list[int]()

    @here.task
    async def note(number: int) -> None:
        seen.append(number)
        await asyncio.sleep(0.001)

    async with here, here.worker(concurrency=4, prefetch=4), here.worker(concurrency=1):
        jobs = await here.enqueue_many(note.s(n) for n in range(300))
        for _ in range(20):
            await here.queue().pause()
            await asyncio.sleep(0.005)
            await here.queue().resume()
            await asyncio.sleep(0.005)
        for job in jobs:
            await job.result(timeout=3)  # the sweep that nobody wakes comes later, and the look after 5 s
    assert sorted(seen) == list(range(300))
