"""F22: callers are cancelled, at each of their awaits in turn, and before, while and after the reply comes.

Nobody else may notice: whoever shares the connection gets its own replies, and what was under way counts once or never.
Elsewhere: tests/broker/test_connect.py (a cancelled call never leaves its reply to another), by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest

from streamq import Job, StreamQ
from streamq.broker.broker import Broker
from streamq.broker.connect import Connections, Line
from tests.broker.byhand import Server, Worker, done
from tests.faults.arena import QUEUE, Arena
from tests.faults.buggify import Moment, cancelled_at, was_cancelled
from tests.faults.ledger import ACKED, INTENT
from tests.faults.proxy import delay

Call = Coroutine[Any, Any, object]
MOMENTS = pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())


async def echo(line: Line, tag: str) -> None:
    assert await line.call("ECHO", tag) == tag.encode()


async def among(neighbours: Callable[[str], Call], call: Call, at: int, moment: Moment, *, ahead: int = 3) -> bool:
    """Cancel a call while others are ahead of it and behind it; these come to their ends, as themselves."""
    before = [asyncio.create_task(neighbours(f"b{at}-{n}")) for n in range(ahead)]
    victim = cancelled_at(call, at, moment)
    behind = [asyncio.create_task(neighbours(f"a{at}-{n}")) for n in range(3)]
    struck = await was_cancelled(victim)
    await asyncio.gather(*before, *behind)
    await neighbours(f"l{at}")
    return struck


# ---- producers ------------------------------------------------------------------------------------------------


@dataclass
class Caller:
    """What one caller of an application does, and its neighbours. `job` is somebody else's, and under way."""

    arena: Arena
    app: StreamQ[Any]
    job: Job[Any]

    def enqueue(self, key: str) -> Call:
        return self.arena.enqueue(self.app, "work", key)

    def delayed(self, key: str) -> Call:
        return self.arena.enqueue(self.app, "work", key, countdown=0.001, idempotency_key=key)

    def enqueue_many(self, key: str) -> Call:
        signatures = [self.app.tasks["work"].s(f"{key}-{n}") for n in range(5)]
        self.arena.ledger.note_all(INTENT, [(f"{key}-{n}", "-") for n in range(5)])
        return self.app.enqueue_many(signatures, chunk=2)

    def result(self, _: str) -> Call:
        return self.job.result(timeout=20)

    def info(self, _: str) -> Call:
        return self.job.info()

    async def ask(self, tag: str) -> None:
        """A neighbour on the same connection."""
        await self.app.open()
        await echo(self.app.broker.line("commands"), tag)

    async def order(self, tag: str) -> None:
        """A neighbour that shares the round trip, and waits for what it ordered."""
        job = await self.arena.enqueue(self.app, "work", tag, 0.001)
        assert await job.result(timeout=20) == tag


CALLS = [
    ("enqueue", "ask"),
    ("enqueue", "order"),
    ("delayed", "ask"),
    ("delayed", "order"),
    ("enqueue_many", "order"),
    ("result", "order"),
    ("info", "ask"),
]


async def each_await(arena: Arena, what: str, neighbours: str, moment: Moment, *, cold: bool) -> int:
    """Cancel one caller after the other, each at its next await, until one has no more; how many awaits there are.
    `cold`: each finds an application that is not connected yet, and is the first to need it."""
    worker = arena.app(direct=True)
    async with worker, worker.worker(concurrency=20), contextlib.AsyncExitStack() as stack:
        warm = await stack.enter_async_context(arena.app())
        arena.proxy.inflict(delay(0.0, 0.004), share=0.5)
        for at in count():
            app = arena.app() if cold else warm
            job = await arena.enqueue(worker, "work", f"j{at}", 0.02)
            caller = Caller(arena, app, app.job(job.id, queue=QUEUE))
            call = getattr(caller, what)(f"v{at}")
            struck = await among(getattr(caller, neighbours), call, at, moment, ahead=0 if cold else 3)
            assert await job.result(timeout=20) == f"j{at}"
            if cold:
                await app.close()
            if not struck:
                break
        await arena.settled()
    verdict = await arena.verdict()
    verdict.assert_base()
    assert verdict.done >= len(arena.entries(ACKED))  # whoever was told is served, and perhaps some who were not
    assert verdict.done <= len(arena.entries(INTENT))
    return at


@MOMENTS
@pytest.mark.parametrize(("what", "neighbours"), CALLS)
async def test_f22_a_caller_is_cancelled_at_each_await(
    arena: Arena, what: str, neighbours: str, moment: Moment
) -> None:
    assert await each_await(arena, what, neighbours, moment, cold=False) >= 1


@MOMENTS
@pytest.mark.parametrize(("what", "neighbours"), [("enqueue", "ask"), ("enqueue", "order"), ("result", "order")])
async def test_f22_a_caller_is_cancelled_while_it_connects(
    arena: Arena, what: str, neighbours: str, moment: Moment
) -> None:
    assert await each_await(arena, what, neighbours, moment, cold=True) >= 2


@MOMENTS
async def test_f22_a_call_is_cancelled_while_its_line_connects(arena: Arena, moment: Moment) -> None:
    connections = Connections(arena.proxy.url)
    arena.proxy.inflict(delay(0.0, 0.004), share=0.5)
    for at in count():
        line = connections.line()
        struck = await among(partial(echo, line), echo(line, "victim"), at, moment, ahead=0)
        await line.close()
        if not struck:
            break
    await connections.close()
    assert at >= 3  # socket, transport, handshake, reply


# ---- workers --------------------------------------------------------------------------------------------------


class Fetches:
    """The ways in which a worker asks for jobs: each gives a call, and says on which line it goes."""

    def __init__(self, arena: Arena, broker: Broker, name: str) -> None:
        self.look, self.broker, self.hand = Server(arena.client, broker, QUEUE), broker, Worker(broker, name, QUEUE)
        self.purpose = f"listen {name}"

    async def turn(self) -> tuple[Call, Line]:
        return self.hand.turn(want=5), self.broker.line(f"turn {QUEUE}")

    async def block(self) -> tuple[Call, Line]:
        return self.broker.block(self.purpose, QUEUE, self.hand.name, 1_000), self.broker.line(self.purpose)

    async def sweep(self) -> tuple[Call, Line]:
        for each in await Worker(self.broker, "dead", QUEUE).take(5):
            self.look.expire(each)
        return self.hand.sweep(), self.broker.line("commands")


@MOMENTS
@pytest.mark.parametrize("way", ["turn", "block", "sweep"])
async def test_f22_a_fetch_is_cancelled_at_each_await(arena: Arena, way: str, moment: Moment) -> None:
    app = arena.app()
    async with app:
        await app.broker.prepare(QUEUE)
        for at in count():
            await arena.enqueue_many(app, "work", [f"n{at}-{n}" for n in range(3)])
            call, line = await getattr(Fetches(arena, app.broker, f"w{at}"), way)()
            # A blocking read has its line to itself: it would hold up its neighbours.
            neighbours = app.broker.line("commands") if way == "block" else line
            struck = await among(partial(echo, neighbours), call, at, moment)
            await echo(line, "after")
            for name in (f"w{at}", "dead"):  # as a worker does that is told to go
                await app.broker.leave(QUEUE, name)
            if not struck:
                break
        async with app.worker(concurrency=20):
            await arena.settled()
    verdict = await arena.verdict()
    verdict.assert_base(done=3 * (at + 1))
    assert at >= 1
    assert set(verdict.starts.values()) == {1}


@MOMENTS
async def test_f22_a_settlement_is_cancelled_at_each_await_and_sent_again(arena: Arena, moment: Moment) -> None:
    app = arena.app()
    async with app:
        await app.broker.prepare(QUEUE)
        for at in count():
            jobs = await arena.enqueue_many(app, "work", [f"n{at}-{n}" for n in range(3)])
            hand = Worker(app.broker, f"w{at}", QUEUE)
            pairs = [(each, done()) for each in await hand.take(3)]
            line = app.broker.line(f"turn {QUEUE}")
            struck = await among(partial(echo, line), hand.turn(pairs), at, moment)
            replies = (await hand.turn(pairs, request=hand.request)).replies
            assert set(replies) <= {"ok", "dup"}
            assert [(await app.broker.find(QUEUE, job.id)).where for job in jobs] == ["gone"] * 3
            await app.broker.leave(QUEUE, f"w{at}")
            if not struck:
                break
    (await arena.verdict()).assert_base(done=3 * (at + 1))
    assert at >= 1
