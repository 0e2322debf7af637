"""More callers than there is room for, results that go before they are read, one key for all. F35 to F38.

Elsewhere: F36 tests/client/test_acceptance.py (a result that is not kept has one answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from statistics import median
from typing import Any

import pytest

from streamq import BrokerUnavailable, IdempotencyMismatch, ResultExpired, ResultTimeout, StreamQ
from streamq.broker.results import _REREAD
from tests.faults.arena import PATIENCE, QUEUE, Arena
from tests.faults.ledger import COMMIT, START
from tests.faults.proxy import KILL, KILL_UNSENT, script
from tests.worker.waits import until


@pytest.mark.parametrize(("producers", "allowed"), [(100, 110), pytest.param(1000, 1100, marks=pytest.mark.slow)])
async def test_f35_more_connections_than_the_server_allows(arena: Arena, producers: int, allowed: int) -> None:
    consumer = arena.app(direct=True)
    async with consumer, consumer.worker(concurrency=50):

        async def crowd(name: str) -> int:
            """All at once, each with a connection that it keeps until all others have one or were refused."""
            told, all_told = 0, asyncio.Event()

            async def produce(n: int) -> bool:
                nonlocal told
                app = arena.app(direct=True, timeout=0.5)
                try:
                    await app.link.open(0.5)
                    await arena.enqueue(app, "work", f"{name}-{n}")
                    served = True
                except BrokerUnavailable:
                    served = False
                told += 1
                if told == producers:
                    all_told.set()
                await all_told.wait()
                await app.close()
                return served

            return sum(await asyncio.gather(*map(produce, range(producers))))

        arena.client.config_set("maxclients", allowed)
        assert await crowd("room") == producers
        await arena.settled()
        before = lines_of(consumer)
        arena.client.config_set("maxclients", producers // 2)
        served = await crowd("full")
        assert 0 < served < producers  # each refusal was a BrokerUnavailable, or this line would not be reached
        assert lines_of(consumer) == before  # nobody took a connection from the worker
        arena.measured(f"of {producers} producers, room for {producers // 2} connections: served", served, "")
        arena.client.config_set("maxclients", 10_000)
        await arena.settled()
        job = await arena.enqueue(consumer, "work", "last")
        assert await job.result(timeout=10) == "last"
    (await arena.verdict()).assert_base()


def lines_of(app: StreamQ[Any]) -> dict[Any, int]:
    """How often each of its lines was connected."""
    return {name: line.connected for name, line in app.broker._lines.items()}


async def test_f36_a_result_expires_while_its_waiter_sleeps(arena: Arena) -> None:
    app = arena.app(result_ttl="100ms")
    async with app, app.worker():
        job = await app.tasks["work"].enqueue("n")
        await arena.seen(COMMIT)
        await until(lambda: not arena.client.exists(app.broker.keys("default").records + job.id))
        with pytest.raises(ResultExpired):
            await job.result(timeout=5)
        held, over = await app.tasks["hold"].enqueue("h"), list[float]()
        for _ in range(7):
            began = time.monotonic()
            with pytest.raises(ResultTimeout):
                await held.result(timeout=0.2)
            over.append(time.monotonic() - began - 0.2)
        assert min(over) >= 0
        # Of several the one in the middle: a core may be taken away from any one of them.
        assert arena.measured("how late ResultTimeout is", median(over)) <= 0.1
        (arena.folder / "go").touch()
        await arena.settled()


@pytest.mark.parametrize(("size", "expired"), [(10, False), (100_000, True)], ids=["small", "large"])
async def test_f36_a_result_expires_while_its_waiter_stands_still(arena: Arena, size: int, expired: bool) -> None:
    # The message that the job has ended brings a small result along, and waits in the waiter's socket.
    app = arena.app(direct=True, result_ttl="100ms")
    async with app, arena.crew(settings={"result_ttl": "100ms"}) as crew:
        await crew.start()
        job = await app.tasks["echo"].s(b"x" * size).using(countdown=0.3).enqueue()
        waiting = asyncio.create_task(job.result(timeout=20))
        side = app.broker.keys(QUEUE).side
        await until(lambda: bool(arena.client.hexists(side, f"w:{job.id}")))
        time.sleep(1.0)  # this process, all of it
        began = time.monotonic()
        if expired:
            with pytest.raises(ResultExpired):
                await waiting
        else:
            assert await waiting == b"x" * size
        late = arena.measured("from the waiter's return until it is told", time.monotonic() - began)
        assert late <= _REREAD + PATIENCE
        assert await crew.stop() == [0]


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
        late = arena.measured("from the job's end until its waiter sees it", (time.time_ns() - ended) / 1e9)
        assert late <= _REREAD + PATIENCE
        arena.proxy.heal()
        job = await arena.enqueue(app, "work", "after")
        assert await job.result(timeout=10) == "after"
    (await arena.verdict()).assert_base(done=2)


async def test_f38_a_storm_on_one_idempotency_key(arena: Arena) -> None:
    consumer = arena.app(direct=True)
    rule = arena.proxy.inflict(KILL, on=script("enqueue"), share=0.5, times=10)
    async with consumer, consumer.worker(), contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(arena.app()) for _ in range(50)]
        jobs = await asyncio.gather(*(arena.enqueue(app, "work", "once", 0.01, idempotency_key="k") for app in crowd))
        assert len({job.id for job in jobs}) == 1
        assert sum(not job.deduplicated for job in jobs) <= 1
        with pytest.raises(IdempotencyMismatch):
            await crowd[0].tasks["work"].using(idempotency_key="k").enqueue("other")
        await arena.settled()
    assert rule.hits > 0
    (await arena.verdict()).assert_base(done=1)
    assert len(arena.entries(START)) == 1
