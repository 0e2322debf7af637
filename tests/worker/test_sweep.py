"""When the sweep looks, and where: seldom while nothing is pending, and yet no lease runs out unnoticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from streamq.broker.broker import Broker
from streamq.core.job import Delivery
from streamq.core.outcome import Release
from streamq.worker.bell import Bell
from streamq.worker.crew import Crew
from tests.conftest import MakeApp
from tests.worker.waits import one_server, until

LEASE = 1.0
PROMISE = 1.25 * LEASE + 1
QUEUE = "default"


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages on the bell are lost."""
    monkeypatch.setattr(Bell, "hear", lambda self, message: None)


def noted(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The sweeps that were answered: whether each was everywhere."""
    sweeps, reclaim = list[bool](), broker.reclaim

    async def note(queue: str, consumer: str, **how: Any) -> tuple[list[Delivery], bool]:
        answer = await reclaim(queue, consumer, **how)
        sweeps.append(how["everywhere"])
        return answer

    monkeypatch.setattr(broker, "reclaim", note)
    return sweeps


async def die_with(broker: Broker) -> None:
    await broker.turn(QUEUE, "dead", [], 1, request=1)


async def give_back(broker: Broker) -> None:
    (delivery,) = (await broker.turn(QUEUE, "left", [], 1, request=1)).deliveries
    await broker.turn(QUEUE, "left", [(delivery, Release())], 0, request=2)


async def by_sweep_alone(crew: Crew, broker: Broker) -> None:
    """Every other way to a job is closed: nothing that is enqueued from here on comes to this worker by itself."""
    await until(lambda: crew.slots.listening == 1)
    for listener in crew.listeners:
        listener.stop()
    await until(lambda: crew.slots.listening == 0)

    async def unblocked() -> bool:
        return (await broker.info("clients"))["blocked_clients"] == "0"

    await until(unblocked)  # the server has noticed it too


@one_server
@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("leave_it", [die_with, give_back])
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
async def test_what_is_left_behind_right_after_a_look_is_found_in_time(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch, leave_it: Callable[[Broker], Awaitable[None]], guarded: bool
) -> None:
    if not guarded:
        monkeypatch.setattr("streamq.worker.reclaimer.EVERYWHERE", 3.0)
    here = app(lease=LEASE)

    @here.task
    async def echo(number: int) -> int:
        return number

    async with here:
        sweeps = noted(here.broker, monkeypatch)
        async with here.worker() as worker:
            assert worker.crew is not None
            await by_sweep_alone(worker.crew, here.broker)
            sweeps.clear()
            worker.crew.reclaimers[QUEUE].wake()
            await until(lambda: bool(sweeps))
            job = await echo.enqueue(7)
            await leave_it(here.broker)
            left = time.monotonic()
            assert await job.result(timeout=10) == 7
            assert (time.monotonic() - left <= PROMISE) is guarded


async def test_what_is_given_back_is_taken_at_once(app: MakeApp) -> None:
    here = app(lease="60s")

    @here.task
    async def echo(number: int) -> int:
        return number

    async with here, here.worker() as worker:
        assert worker.crew is not None
        await by_sweep_alone(worker.crew, here.broker)
        job = await echo.enqueue(7)
        await give_back(here.broker)
        assert await job.result(timeout=5) == 7


async def test_an_empty_queue_is_looked_at_once_a_lease(app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    here = app(lease="30s")
    async with here:
        sweeps, reclaimer = noted(here.broker, monkeypatch), Crew(here.worker(), None).reclaimers[QUEUE]
        pauses = [await reclaimer.turn() for _ in range(20)]
        assert sweeps == [True]
        assert 0 < min(pauses) <= max(pauses) <= 0.15 * 30
        assert 26 < reclaimer._everywhere_at - time.monotonic() <= 30
        job = await here.enqueue("nobody has it")
        await die_with(here.broker)
        await reclaimer.turn()
        assert sweeps == [True]  # it was not told, and needs not know before the lease can run out
        reclaimer._everywhere_at = 0.0
        for _ in range(3):
            await reclaimer.turn()
        assert sweeps == [True, True, False, False]
        assert (await here.broker.find(QUEUE, job.id)).consumer == "dead"


async def test_a_bell_that_rings_during_a_look_is_not_forgotten(app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    here = app(lease="30s")
    async with here:
        reclaimer, reclaim = Crew(here.worker(), None).reclaimers[QUEUE], here.broker.reclaim

        async def rung(queue: str, consumer: str, **how: Any) -> tuple[list[Delivery], bool]:
            answer = await reclaim(queue, consumer, **how)
            reclaimer.wake()
            return answer

        monkeypatch.setattr(here.broker, "reclaim", rung)
        await reclaimer.turn()
        sweeps = noted(here.broker, monkeypatch)
        await reclaimer.turn()
        assert sweeps == [True]


async def test_a_look_that_failed_is_made_again(app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    here = app(lease="30s")
    async with here:
        reclaimer = Crew(here.worker(), None).reclaimers[QUEUE]

        async def lost(*_: object, **__: object) -> tuple[list[Delivery], bool]:
            raise ConnectionResetError("the reply was lost")

        with monkeypatch.context() as broken:
            broken.setattr(here.broker, "reclaim", lost)
            with pytest.raises(ConnectionResetError):
                await reclaimer.turn()
        sweeps = noted(here.broker, monkeypatch)
        await reclaimer.turn()
        assert sweeps == [True]


# ---- the quiet time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("absence", "believed"), [("none", True), ("a new connection", False), ("a late reply", False)]
)
async def test_after_an_absence_only_what_was_given_back_is_taken(
    url: str, app: MakeApp, absence: str, believed: bool
) -> None:
    here = app(lease="4s")  # a reply is late after 1 s
    async with here:
        crew = Crew(here.worker(), None)
        reclaimer, broker = crew.reclaimers[QUEUE], here.broker
        await reclaimer.turn()
        reclaimer._quiet_until = 0.0  # however young the server is
        given = await here.enqueue("nobody has it")
        await give_back(broker)
        expired = await here.enqueue("nobody has it")
        await die_with(broker)
        with redis.Redis.from_url(url) as client:
            stream = broker.keys(QUEUE).stream(0)
            (held,) = client.xpending_range(stream, "w", "-", "+", 10, "dead")
            client.xclaim(stream, "w", "dead", 0, [held["message_id"]], idle=60_000, justid=True)
            if absence == "a late reply":
                client.client_pause(1_200)
        if absence == "a new connection":
            broker.line("commands").hang_up()
        reclaimer.wake()
        await reclaimer.turn()
        taken = [each.delivery.job_id for each in crew.lanes[QUEUE].held.values()]
        assert taken == ([given.id, expired.id] if believed else [given.id])
        await asyncio.gather(*(each.task for each in crew.lanes[QUEUE].held.values() if each.task is not None))


async def test_a_connection_that_somebody_else_made_anew_is_noticed(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noticed only at the next look, the quiet time would begin up to a lease late, and end so much later.
    here = app(lease="30s")
    async with here:
        sweeps, reclaimer = noted(here.broker, monkeypatch), Crew(here.worker(), None).reclaimers[QUEUE]
        await reclaimer.turn()
        reclaimer._quiet_until = 0.0
        await reclaimer.turn()
        assert reclaimer._quiet_until == 0.0
        here.broker.line("commands").hang_up()
        await here.broker.command("PING")
        await reclaimer.turn()
        assert sweeps == [True]
        assert 29 < reclaimer._quiet_until - time.monotonic() <= 30
