"""Replies that are lost, connections that break or say nothing, callers that go away. F18 to F22.

Elsewhere: F22 await by await test_cancellation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from streamq import BrokerUnavailable, StreamQ
from tests.faults.arena import PATIENCE, RECOVERY, Arena
from tests.faults.ledger import ACKED, COMMIT, END, INTENT, START
from tests.faults.proxy import (
    BLACKHOLE,
    KILL,
    KILL_UNSENT,
    LOSE_REPLIES,
    LOSE_REQUESTS,
    TRUNCATE,
    Fault,
    delay,
    reset,
    script,
)
from tests.worker.waits import until

ONE_COMMAND = 5.0  # seconds: the time that one command may take, beside the caller's timeout


@pytest.mark.parametrize("fault", [KILL, TRUNCATE], ids=["kill", "truncate"])
async def test_f18_the_reply_to_an_enqueue_is_lost(arena: Arena, fault: Fault) -> None:
    producer, consumer = arena.app(), arena.app(direct=True)
    rules = [arena.proxy.inflict(fault, on=script(name), share=0.2) for name in ("push", "enqueue")]
    async with producer, consumer, consumer.worker():
        for n in range(60):
            await arena.enqueue(producer, "work", f"n{n}")
        await asyncio.gather(*(arena.enqueue(producer, "work", f"c{n}") for n in range(40)))
        again = time.monotonic()
        await arena.enqueue(producer, "work", "one")
        arena.measured("one enqueue, of which every fifth reply is lost", time.monotonic() - again)
        # These have run before the call is made again.
        for n in range(60):
            await arena.enqueue(producer, "work", f"d{n}", countdown=0.01)
        await arena.settled()
    assert min(rule.hits for rule in rules) > 0
    verdict = await arena.verdict()
    verdict.assert_base(done=161)
    started = {entry.key: entry.job_id for entry in arena.entries(START)}
    assert started == {entry.key: entry.job_id for entry in arena.entries(ACKED)}


@pytest.mark.parametrize("fault", [KILL, TRUNCATE], ids=["kill", "truncate"])
async def test_f19_the_reply_to_a_fetch_is_lost(arena: Arena, fault: Fault) -> None:
    producer, consumer = arena.app(direct=True), arena.app()
    async with producer, consumer, consumer.worker() as worker:
        # A lone job goes to the blocking read. The one that hangs already was passed on: the next one is lost.
        assert worker.crew is not None
        slots = worker.crew.slots
        await until(lambda: slots.listening == 1)
        rule = arena.proxy.inflict(fault, on=(b"XREADGROUP",), times=1)
        await arena.enqueue(producer, "work", "first")
        await until(lambda: rule.hits == 1)
        since = time.time_ns()
        await arena.enqueue(producer, "work", "lost")
        await arena.settled(within=20)
        (begun,) = arena.entries(START, key="lost")
        alone = arena.measured("a lone job: from its delivery to its start", (begun.at - since) / 1e9)
        # A crowd comes by turns.
        rule, since = arena.proxy.inflict(fault, on=script("turn"), times=3), time.time_ns()
        await arena.enqueue_many(producer, "work", [f"n{n}" for n in range(300)], 0.005)
        await arena.settled(within=20)
        assert rule.hits == 3
        last = max(entry.at for entry in arena.entries(START))
        crowd = arena.measured("three of a crowd's turns: from there to the last start", (last - since) / 1e9)
    verdict = await arena.verdict()
    verdict.assert_base(done=302)
    assert set(verdict.starts.values()) == {1}
    assert alone <= RECOVERY + PATIENCE
    assert crowd <= 2 * RECOVERY + PATIENCE  # a sweep's reply may be the third that is lost, and half of them wait


async def test_f20_the_reply_to_a_finish_is_lost(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    app = arena.app()
    async with app, app.worker() as worker:
        assert worker.crew is not None
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(20)])
        await arena.seen(START, 20)
        # A turn that settles brings the records, and these name the task; one that only fetches would lose nothing.
        rules = [arena.proxy.inflict(fault, on=script("turn"), about=b"hold", times=1) for fault in (KILL, TRUNCATE)]
        (arena.folder / "go").touch()
        await arena.settled()
        last = (await arena.seen(COMMIT, 20, within=3))[-1].at
        ended = max(entry.at for entry in arena.entries(END))
        arena.measured("from the last job's end until its worker knows that it counts", (last - ended) / 1e9)
        assert [rule.hits for rule in rules] == [1, 1]
    verdict = await arena.verdict()
    verdict.assert_base(done=20)
    assert set(verdict.starts.values()) == {1}
    assert "nothing is recorded" not in caplog.text


RESETS = [reset(n) for n in (1, 20, 100, 500, 3_000)]


@pytest.mark.parametrize(
    "faults",
    [
        *([KILL], [KILL_UNSENT], [TRUNCATE], [delay(0.0, 0.3)], RESETS),
        pytest.param([delay(0.0, 1.0), KILL, KILL_UNSENT, TRUNCATE, *RESETS], marks=pytest.mark.slow),
    ],
    ids=["kill", "kill-unsent", "truncate", "delay", "reset", "all"],
)
async def test_f21_the_network_is_bad_everywhere(arena: Arena, faults: list[Fault]) -> None:
    app = arena.app()
    async with app, app.worker(concurrency=20), app.worker(concurrency=20):
        rules = [arena.proxy.inflict(each, share=0.05 / len(faults)) for each in faults]
        took: list[float] = []
        jobs = await asyncio.gather(*(enqueue_some(arena, app, f"p{n}", took) for n in range(4)))
        await arena.settled()
        arena.proxy.heal()
        results = await asyncio.gather(*(job.result(timeout=10) for each in jobs for job in each))
        assert sum(rule.hits for rule in rules) > 0
    verdict = await arena.verdict()
    # A worker whose goodbye is lost with its connection leaves its name to a janitor.
    verdict.left = [each for each in verdict.left if not each.startswith("consumer ")]
    verdict.assert_base(done=len(results))
    slowest = arena.measured("slowest enqueue of 200, on a connection that breaks all the time", max(took))
    assert slowest <= app.options.timeout + ONE_COMMAND + PATIENCE


async def enqueue_some(arena: Arena, app: StreamQ[Any], name: str, took: list[float]) -> list[Any]:
    jobs: list[Any] = []
    for n in range(50):
        began = time.monotonic()
        jobs.append(await arena.enqueue(app, "work", f"{name}-{n}", 0.01))
        took.append(time.monotonic() - began)
    return jobs


@pytest.mark.parametrize("seconds", [4.5, pytest.param(10.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "fault",
    [BLACKHOLE, pytest.param(LOSE_REQUESTS, marks=pytest.mark.slow), LOSE_REPLIES],
    ids=["both", "requests", "replies"],
)
async def test_f21_half_open_connections(
    arena: Arena, fault: Fault, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.worker.listener.BLOCK_MS", 500)
    app, hasty = arena.app(), arena.app(timeout=1.0)
    async with app, hasty, app.worker(concurrency=20):
        before = await arena.enqueue_many(hasty, "work", [f"b{n}" for n in range(50)], 0.01)
        await arena.settled()
        arena.proxy.inflict(fault)
        patient = asyncio.create_task(arena.enqueue(app, "work", "patient"))
        arena.ledger.note(INTENT, "hasty")
        given_up = asyncio.create_task(timed(hasty.tasks["work"].enqueue("hasty")))
        await asyncio.sleep(seconds)  # so long nothing passes, and what is under way will never be answered
        arena.proxy.heal()
        healed = time.time_ns()
        error, took = await given_up
        assert isinstance(error, BrokerUnavailable)
        assert arena.measured("an enqueue with a timeout of 1 s, until it raises", took) <= 1.0 + ONE_COMMAND + PATIENCE
        after = await patient
        assert await after.result(timeout=20) == "patient"
        arena.measured("from the healed network to the result of a patient caller", (time.time_ns() - healed) / 1e9)
        assert [await job.result(timeout=5) for job in before] == [f"b{n}" for n in range(50)]
        await arena.settled()
    # Nobody knows whether the hasty one was carried out, and yet it was, once, or was not.
    (await arena.verdict()).assert_base(done=52 if fault == LOSE_REPLIES else 51)


async def timed(call: Coroutine[Any, Any, object]) -> tuple[BaseException | None, float]:
    """What it raised, and after how many seconds."""
    began, error = time.monotonic(), None
    try:
        await call
    except Exception as raised:
        error = raised
    return error, time.monotonic() - began


async def test_f22_callers_are_cancelled_at_every_await(arena: Arena) -> None:
    app = arena.app()
    async with app, app.worker(concurrency=20):
        arena.proxy.inflict(delay(0.0, 0.01), share=0.3)

        async def impatient(n: int) -> None:
            task = asyncio.create_task(one(n))
            for _ in range(arena.dice.randrange(0, 12)):
                await asyncio.sleep(0)
            await asyncio.sleep(arena.dice.choice([0.0, 0.002, 0.02]))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def one(n: int) -> None:
            job = await arena.enqueue(app, "work", f"n{n}")
            assert await job.result(timeout=10) == f"n{n}"
            assert (await job.info()).id == job.id
            assert await app.broker.command("ECHO", f"tag{n}") == f"tag{n}".encode()

        for first in range(0, 200, 20):
            await asyncio.gather(*(impatient(first + n) for n in range(20)))
        await asyncio.gather(*(one(1000 + n) for n in range(20)))
        await arena.settled()
    verdict = await arena.verdict()
    verdict.assert_base()
    assert verdict.done >= len(arena.entries(ACKED))
