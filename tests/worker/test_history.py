"""What real workers leave in the history: the crash, the lost lease, and the start that a blocking read brought."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streamq import Job, StreamQ
from streamq.broker.broker import Broker, Turn
from streamq.worker.crew import Crew
from streamq.worker.flight import Flight
from streamq.worker.lane import Lane
from tests.conftest import MakeApp
from tests.worker.processes import lines, victim
from tests.worker.test_heartbeat import crew_of
from tests.worker.waits import one_server, until

LEASE = 1.0


async def kinds(job: Job[Any]) -> list[str]:
    return [step.what for step in (await job.timeline()).steps]


@one_server
async def test_the_job_of_a_killed_worker(url: str, namespace: str, app: MakeApp, tmp_path: Path) -> None:
    here, ledger = app(lease=LEASE), tmp_path / "ledger"

    @here.task(name="hang")
    async def hang() -> str:
        return "recovered"

    async with here, victim(url, namespace, ledger) as process:
        job = await hang.enqueue()
        await until(lambda: len(lines(ledger)) == 1)
        process.kill()
        async with here.worker(name="second"):
            assert await job.result(timeout=10) == "recovered"
        told = await job.timeline()
    assert [(step.what, step.attempt, step.fence) for step in told.steps] == [
        ("enqueued", 0, 0),
        ("started", 1, 1),
        ("taken-over", 2, 2),
        ("succeeded", 2, 2),
    ]
    first = told.steps[1].worker
    assert f"-{process.pid}-" in first
    assert told.steps[2].why == f"{first} did not renew its lease for 1.0 s: second took it over, start 2"
    assert told.steps[3].worker == "second"
    assert told.starts == 2
    assert [step.at for step in told.steps] == sorted(step.at for step in told.steps)


async def test_a_worker_that_lost_its_lease_and_did_not_notice(url: str, namespace: str, app: MakeApp) -> None:
    here = app(lease="0.3s")
    other: StreamQ[Any] = StreamQ(url, namespace=namespace, lease="0.3s")
    let_go = asyncio.Event()

    @here.task(name="mail")
    async def slow() -> str:
        await let_go.wait()
        return "here"

    @other.task(name="mail")
    async def quick() -> str:
        let_go.set()
        await asyncio.sleep(0.2)
        return "there"

    async with here, other, here.worker(name="w1") as worker:
        crew_of(worker).heartbeat.suspended = True
        crew_of(worker).reclaimers["default"].stop()  # or it would take its own job again
        job = await slow.enqueue()
        await until(lambda: bool(crew_of(worker).lanes["default"].held))
        async with other.worker(name="w2"):
            assert await job.result(timeout=10) == "there"
        told = await job.timeline()
    assert [(step.what, step.worker) for step in told.steps] == [
        ("enqueued", ""),
        ("started", "w1"),
        ("taken-over", "w2"),
        ("refused", "w1"),
        ("succeeded", "w2"),
    ]
    assert told.steps[3].why.startswith("its late outcome (succeeded) was refused: w2 has the job")


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_what_the_listener_brought_is_told_at_once(app: MakeApp, concurrency: int) -> None:
    """Killed now, the worker would leave no other trace of who had it: with one slot no turn was due before its end."""
    here, gate = app(), asyncio.Event()

    @here.task
    async def wait() -> None:
        await gate.wait()

    async with here:
        job = await wait.enqueue()
        lane, flight = await heard_by(here, concurrency)
        await flight.turn()
        assert await kinds(job) == ["enqueued", "started"]
        gate.set()
        await until(lambda: not lane.flushed)
        await flight.turn()
        assert await kinds(job) == ["enqueued", "started", "succeeded"]


async def test_a_start_is_told_once_though_the_turn_is_sent_twice(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carried out, and its reply lost: told again, it could be a start after the job's end."""
    here, turn, sent = app(), Broker.turn, list[list[str]]()

    @here.task
    async def quick() -> None: ...

    async def losing(broker: Broker, *args: Any, heard: list[str], **more: Any) -> Turn:
        sent.append(heard)
        reply = await turn(broker, *args, heard=heard, **more)
        if len(sent) == 1:
            raise ConnectionResetError("the reply was lost")
        return reply

    monkeypatch.setattr(Broker, "turn", losing)
    async with here:
        job = await quick.enqueue()
        lane, flight = await heard_by(here, 10)
        await flight.turn()
        if not lane.flushed:
            await flight.turn()
        assert sent[:2] == [[job.id], []]
        assert await kinds(job) == ["enqueued", "started", "succeeded"]


async def test_switched_off_the_listener_costs_no_turn(app: MakeApp) -> None:
    here = app(events=0)

    @here.task
    async def quick() -> None: ...

    async with here:
        await quick.enqueue()
        lane, _ = await heard_by(here, 1)
        assert lane.board() is None


async def heard_by(here: StreamQ[Any], concurrency: int) -> tuple[Lane, Flight]:
    """A worker of which nothing runs by itself, and whose listener has just brought a job."""
    crew = Crew(here.worker(concurrency=concurrency, name="w1"), None)
    lane = crew.lanes["default"]
    await here.broker.prepare("default")
    lane.room.set()
    await crew.listeners[0].turn()
    return lane, Flight(here.broker, lane, "w1", 0)
