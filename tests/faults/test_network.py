"""Replies that are lost, connections that break or say nothing, callers that go away. F18 to F22, F35 to F38.

Elsewhere: F22 on one connection tests/broker/test_connect.py (a cancelled call never leaves its reply to another); F36
tests/client/test_acceptance.py (a result that is not kept has one answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from streamq import BrokerUnavailable, IdempotencyMismatch, ResultExpired, ResultTimeout, StreamQ
from streamq.broker.results import _REREAD
from tests.faults.arena import PATIENCE, Arena
from tests.faults.ledger import ACKED, COMMIT, INTENT, START
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


@pytest.mark.parametrize("fault", [KILL, TRUNCATE], ids=["kill", "truncate"])
async def test_f18_the_reply_to_an_enqueue_is_lost(arena: Arena, fault: Fault) -> None:
    producer, consumer = arena.app(), arena.app(direct=True)
    rules = [arena.proxy.inflict(fault, on=script(name), share=0.2) for name in ("push", "enqueue")]
    async with producer, consumer, consumer.worker():
        for n in range(60):
            await arena.enqueue(producer, "work", f"n{n}")
        await asyncio.gather(*(arena.enqueue(producer, "work", f"c{n}") for n in range(40)))
        # These have run before the call is made again.
        for n in range(60):
            await arena.enqueue(producer, "work", f"d{n}", countdown=0.01)
        await arena.settled()
    assert min(rule.hits for rule in rules) > 0
    verdict = await arena.verdict()
    verdict.assert_base(done=160)
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
        await arena.enqueue(producer, "work", "lost")
        await arena.settled(within=20)
        # A crowd comes by turns.
        rule = arena.proxy.inflict(fault, on=script("turn"), times=3)
        await arena.enqueue_many(producer, "work", [f"n{n}" for n in range(300)], 0.005)
        await arena.settled(within=20)
        assert rule.hits == 3
    verdict = await arena.verdict()
    verdict.assert_base(done=302)
    assert set(verdict.starts.values()) == {1}


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
        await arena.seen(COMMIT, 20, within=3)
        assert [rule.hits for rule in rules] == [1, 1]
    verdict = await arena.verdict()
    verdict.assert_base(done=20)
    assert set(verdict.starts.values()) == {1}
    assert "nothing is recorded" not in caplog.text


@pytest.mark.parametrize(
    "faults",
    [[KILL], [KILL_UNSENT], [TRUNCATE], [delay(0.0, 0.3)], [reset(n) for n in (1, 20, 100, 500, 3_000)]],
    ids=["kill", "kill-unsent", "truncate", "delay", "reset"],
)
async def test_f21_the_network_is_bad_everywhere(arena: Arena, faults: list[Fault]) -> None:
    app = arena.app()
    async with app, app.worker(concurrency=20), app.worker(concurrency=20):
        rules = [arena.proxy.inflict(each, share=0.05 / len(faults)) for each in faults]
        jobs = await asyncio.gather(*(enqueue_some(arena, app, f"p{n}") for n in range(4)))
        await arena.settled()
        arena.proxy.heal()
        results = await asyncio.gather(*(job.result(timeout=10) for each in jobs for job in each))
        assert sum(rule.hits for rule in rules) > 0
    verdict = await arena.verdict()
    verdict.assert_base(done=len(results))


async def enqueue_some(arena: Arena, app: StreamQ[Any], name: str) -> list[Any]:
    return [await arena.enqueue(app, "work", f"{name}-{n}", 0.01) for n in range(50)]


@pytest.mark.parametrize(
    "fault",
    [BLACKHOLE, pytest.param(LOSE_REQUESTS, marks=pytest.mark.slow), LOSE_REPLIES],
    ids=["both", "requests", "replies"],
)
async def test_f21_half_open_connections(arena: Arena, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.worker.listener.BLOCK_MS", 500)
    app, hasty = arena.app(), arena.app(timeout=1.0)
    async with app, hasty, app.worker(concurrency=20):
        before = await arena.enqueue_many(hasty, "work", [f"b{n}" for n in range(50)], 0.01)
        await arena.settled()
        arena.proxy.inflict(fault)
        patient = asyncio.create_task(arena.enqueue(app, "work", "patient"))
        arena.ledger.note(INTENT, "hasty")
        began = time.monotonic()
        given_up = asyncio.create_task(hasty.tasks["work"].enqueue("hasty"))
        await asyncio.sleep(4.5)  # so long nothing passes, and what is under way will never be answered
        arena.proxy.heal()
        with pytest.raises(BrokerUnavailable):
            await given_up
        # 1 s, and the 5 s that the one command under way may take
        assert time.monotonic() - began <= 1.0 + 5.0 + PATIENCE
        after = await patient
        assert await after.result(timeout=20) == "patient"
        assert [await job.result(timeout=5) for job in before] == [f"b{n}" for n in range(50)]
        await arena.settled()
    # Nobody knows whether the hasty one was carried out, and yet it was, once, or was not.
    (await arena.verdict()).assert_base(done=52 if fault == LOSE_REPLIES else 51)


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


@pytest.mark.parametrize(("producers", "allowed"), [(100, 110), pytest.param(1000, 1100, marks=pytest.mark.slow)])
async def test_f35_more_connections_than_the_server_allows(arena: Arena, producers: int, allowed: int) -> None:
    consumer = arena.app(direct=True)
    async with consumer, consumer.worker(concurrency=50):

        async def produce(n: int) -> bool:
            app = arena.app(direct=True, timeout=0.5)
            try:
                async with app:
                    await arena.enqueue(app, "work", f"{allowed}-{n}")
                    await asyncio.sleep(0.2)  # it keeps its connection
                    return True
            except BrokerUnavailable:
                return False

        arena.client.config_set("maxclients", allowed)
        assert all(await asyncio.gather(*map(produce, range(producers))))
        allowed = producers // 2
        arena.client.config_set("maxclients", allowed)
        served = await asyncio.gather(*map(produce, range(producers)))
        assert sum(served) > 0
        arena.client.config_set("maxclients", 10_000)
        await arena.settled()
        job = await arena.enqueue(consumer, "work", "last")
        assert await job.result(timeout=10) == "last"
    (await arena.verdict()).assert_base()


async def test_f36_a_result_expires_while_its_waiter_sleeps(arena: Arena) -> None:
    app = arena.app(result_ttl="100ms")
    async with app, app.worker():
        job = await app.tasks["work"].enqueue("n")
        await arena.seen(COMMIT)
        await until(lambda: not arena.client.exists(app.broker.keys("default").records + job.id))
        with pytest.raises(ResultExpired):
            await job.result(timeout=5)
        held = await app.tasks["hold"].enqueue("h")
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            await held.result(timeout=0.3)
        assert 0.3 <= time.monotonic() - began <= 0.3 + PATIENCE
        (arena.folder / "go").touch()
        await arena.settled()


async def test_f37_the_subscription_is_cut_off_while_somebody_waits(arena: Arena) -> None:
    app = arena.app()
    worker = arena.app(direct=True)
    async with app, worker, worker.worker():
        job = await arena.enqueue(app, "hold", "h")
        waiting = asyncio.create_task(job.result(timeout=20))
        inbox = app.broker.client_id.encode()

        def subscriptions() -> list[Any]:
            return [wire for wire in arena.proxy.wires if any(b"SUBSCRIBE" in r and inbox in r for r in wire.sent)]

        await arena.seen(START)
        await until(lambda: len(subscriptions()) == 1)
        arena.proxy.inflict(KILL_UNSENT, on=(b"SUBSCRIBE",))  # nor does it come back
        for wire in subscriptions():
            wire.cut()
        (arena.folder / "go").touch()
        ended = (await arena.seen(COMMIT))[0].at
        assert await waiting == "h"
        assert (time.time_ns() - ended) / 1e9 <= _REREAD + PATIENCE
        arena.proxy.heal()
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
    (await arena.verdict()).assert_base(done=2)


async def test_f38_a_storm_on_one_idempotency_key(arena: Arena) -> None:
    consumer = arena.app(direct=True)
    rule = arena.proxy.inflict(KILL, on=script("enqueue"), share=0.5, times=10)
    async with consumer, consumer.worker(), contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(arena.app()) for _ in range(10)]
        jobs = await asyncio.gather(
            *(arena.enqueue(app, "work", "once", 0.01, idempotency_key="k") for app in crowd for _ in range(5))
        )
        assert len({job.id for job in jobs}) == 1
        assert sum(not job.deduplicated for job in jobs) <= 1
        with pytest.raises(IdempotencyMismatch):
            await crowd[0].tasks["work"].using(idempotency_key="k").enqueue("other")
        await arena.settled()
    assert rule.hits > 0
    (await arena.verdict()).assert_base(done=1)
    assert len(arena.entries(START)) == 1
