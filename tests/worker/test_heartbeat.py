"""Leases: who keeps one, who loses one, and that nobody runs a job beside its new owner."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
import redis

from streamq import StreamQ
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.renewer import Held, Renewal, Renewer
from streamq.worker.crew import Crew
from streamq.worker.heartbeat import Heartbeat
from streamq.worker.held import Cause, Holding
from streamq.worker.worker import Worker
from tests.conftest import MakeApp
from tests.worker.waits import until


def crew_of(worker: Worker) -> Crew:
    assert worker.crew is not None
    return worker.crew


def only(worker: Worker) -> Holding:
    (holding,) = crew_of(worker).lanes["default"].held.values()
    return holding


@contextmanager
def worker_in_a_thread(here: StreamQ[Any]) -> Iterator[None]:
    """It shares nothing with the test's event loop, which may stand still."""
    ready, loops, workers = threading.Event(), [], []

    async def live() -> None:
        worker = here.worker()
        async with here, worker:
            loops.append(asyncio.get_running_loop())
            workers.append(worker)
            ready.set()
            await worker._stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        assert ready.wait(5)
        yield
    finally:
        loops[0].call_soon_threadsafe(workers[0].stop)
        thread.join(10)


@pytest.mark.parametrize(("beats", "expected"), [(True, 1), (False, 2)])
async def test_a_job_that_blocks_the_loop_keeps_its_lease(
    url: str, namespace: str, app: MakeApp, beats: bool, expected: int
) -> None:
    # Without heartbeats the other worker takes it: so it would have, had the lease run out.
    here, starts = app(lease="0.3s"), []

    other: StreamQ[Any] = StreamQ(url, namespace=namespace, lease="0.3s")

    @here.task(name="blocks")
    async def blocks() -> str:
        starts.append("here")
        with worker_in_a_thread(other):
            time.sleep(1.0)
        return "here"

    @other.task(name="blocks")
    async def short() -> str:
        starts.append("there")
        return "there"

    async with here, here.worker() as worker:
        crew_of(worker).heartbeat.suspended = not beats
        job = await blocks.enqueue()
        assert await job.result(timeout=5) == ("here" if beats else "there")
        await until(lambda: not crew_of(worker).lanes["default"].held)
    assert len(starts) == expected


async def test_only_what_is_held_is_renewed_often(app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    here, renewals, renew = app(lease="30s"), list[int](), Renewer.renew

    def counted(renewer: Renewer, queue: str, consumer: str, held: list[Held], *more: Any) -> Renewal:
        renewals.append(len(held))
        return renew(renewer, queue, consumer, held, *more)

    monkeypatch.setattr(Renewer, "renew", counted)
    async with here:
        crew = Crew(here.worker(), None)
        beat, held = crew.heartbeat.turn, crew.lanes["default"].held

        async def beats() -> list[int]:
            renewals.clear()
            for _ in range(3):
                await asyncio.to_thread(beat)
            return renewals

        assert await beats() == [0]
        await here.enqueue("anything")
        (delivery,) = (await here.broker.turn("default", crew.heartbeat._consumer, [], 1, request=1)).deliveries
        holding = held[delivery.priority, delivery.entry] = Holding(delivery, time.monotonic() + 30)
        deadline = holding.deadline
        assert await beats() == [1, 1, 1]
        assert holding.deadline > deadline
        held.clear()
        assert await beats() == [0]  # what the worker says of itself names the job no more
        assert await beats() == []
        crew.heartbeat.wake()
        assert await beats() == [0]


async def test_a_paused_worker_cancels_what_it_lost_and_records_nothing(app: MakeApp) -> None:
    here, ends = app(lease="0.3s"), []
    attempts = iter(["first", "second"])
    paused = asyncio.Event()

    @here.task
    async def slow() -> str:
        attempt = next(attempts)
        if attempt == "first":
            paused.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "late"  # a task that will not be told
        return attempt

    here.on("job.succeeded")(lambda event: ends.append(event.worker))
    async with here, here.worker(name="zombie") as zombie:
        job = await slow.enqueue()
        await paused.wait()
        crew_of(zombie).heartbeat.suspended = True
        for reclaimer in crew_of(zombie).reclaimers.values():
            reclaimer.stop()
        holding = only(zombie)
        async with here.worker(name="heir"):
            assert await job.result(timeout=5) == "second"
            resumed = time.monotonic()
            crew_of(zombie).heartbeat.suspended = False
            crew_of(zombie).heartbeat.wake()
            await until(lambda: not crew_of(zombie).lanes["default"].held)
            assert time.monotonic() - resumed < 0.3
        assert holding.cancellation is not None
        assert holding.cancellation.cause is Cause.LOST
        assert await job.result(timeout=1) == "second"
    await here.events.drain()
    assert ends == ["heir"]


async def test_a_worker_that_gets_its_own_entry_again_runs_it_once(app: MakeApp) -> None:
    here, starts, finish = app(lease="0.3s"), 0, asyncio.Event()

    @here.task
    async def slow() -> str:
        nonlocal starts
        starts += 1
        await finish.wait()
        return "once"

    async with here, here.worker() as worker:
        job = await slow.enqueue()
        await until(lambda: starts == 1)
        crew_of(worker).heartbeat.suspended = True
        holding = only(worker)
        await until(lambda: holding.adopted)
        assert holding.delivery.count == 2
        crew_of(worker).heartbeat.suspended = False
        finish.set()
        assert await job.result(timeout=5) == "once"
        assert crew_of(worker).slots.empty
    assert starts == 1


async def test_a_loop_that_stands_still_for_too_long_is_given_up(
    url: str, app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    here, idle = app(lease="0.2s"), []

    @here.task(name="endless")
    async def endless() -> None:
        time.sleep(1.0)  # this line is named
        with redis.Redis.from_url(url) as client:
            stream = here.broker.keys("default").stream(0)
            (pending,) = cast("list[dict[str, int]]", client.xpending_range(stream, "w", "-", "+", 10))
            idle.append(pending["time_since_delivered"])

    async with here, here.worker() as worker:
        crew_of(worker).heartbeat.stall_leases = 2
        with caplog.at_level(logging.ERROR, "streamq.worker"):
            job = await endless.enqueue()
            await job.result(timeout=5, raises=False)
    assert idle
    assert idle[0] > 300
    assert "stood still for 2 leases" in caplog.text
    assert f"endless[{job.id}]" in caplog.text
    assert "time.sleep(1.0)  # this line is named" in caplog.text


@asynccontextmanager
async def private(namespace: str, **settings: Any) -> AsyncIterator[tuple[EmbeddedServer, StreamQ[Any]]]:
    with EmbeddedServer.start() as server:
        here: StreamQ[Any] = StreamQ(server.url, namespace=namespace, **settings)
        try:
            yield server, here
        finally:
            await here.close()


async def test_without_redis_a_job_is_cancelled_when_its_lease_is_over() -> None:
    async with private("alone", lease="0.3s", grace=0.01) as (server, here):
        running, ended = asyncio.Event(), asyncio.Event()

        @here.task
        async def wait() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with here, here.worker() as worker:
            await wait.enqueue()
            await running.wait()
            holding = only(worker)
            os.kill(server.pid, signal.SIGKILL)
            stopped = time.monotonic()
            await asyncio.wait_for(ended.wait(), 10)
            took = time.monotonic() - stopped
            assert holding.cancellation is not None
            assert holding.cancellation.cause is Cause.LOST
            assert took < 1.5
            worker.cancel()


async def test_while_redis_is_away_nothing_piles_up() -> None:
    def clients() -> int:
        gc.collect()
        return sum(isinstance(each, redis.Redis) for each in gc.get_objects())

    with EmbeddedServer.start() as server:
        app = StreamQ(server.url, namespace="away", lease="1s")
        await app.open()
        heartbeat = Heartbeat(app.broker, "w1", {"default": {}}, lambda: b"")
        assert heartbeat._try()
        before = clients()
        server.stop()
        heartbeat.wake()
        assert [heartbeat._try() for _ in range(5)] == [False] * 5
        assert clients() <= before
        await app.close()
