"""A grown application: routes, routers, dependencies, a lifespan, middleware, events and timetables."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from streamq import (
    Call,
    ConfigurationError,
    Context,
    Depends,
    Event,
    JobFailed,
    Middleware,
    Router,
    State,
    current,
    current_job_id,
    gather,
)

if TYPE_CHECKING:
    from tests.conftest import MakeApp

WAIT = 10.0  # seconds; only a failing test ever waits that long


async def test_routes_say_which_queue_a_task_goes_to(app: MakeApp) -> None:
    shop = app(routes={"mail.*": "mail", "video.encode": {"queue": "video", "priority": 3}})

    @shop.task(name="mail.send")
    async def send(ctx: Context[None]) -> str:
        return ctx.queue

    @shop.task(name="video.encode")
    async def encode(ctx: Context[None]) -> tuple[str, int]:
        return ctx.queue, ctx.priority

    @shop.task(name="other")
    async def other(ctx: Context[None]) -> str:
        return ctx.queue

    async with shop, shop.worker():
        assert await (await send.enqueue()).result(timeout=WAIT) == "mail"
        assert list(await (await encode.enqueue()).result(timeout=WAIT)) == ["video", 3]
        assert await (await other.enqueue()).result(timeout=WAIT) == "default"
        assert await (await other.using(queue="mail").enqueue()).result(timeout=WAIT) == "mail"
    async with shop:
        waiting = await send.enqueue()
        async with shop.worker(queues=["default"]):
            await (await other.enqueue()).result(timeout=WAIT)
        assert await waiting.status() is State.QUEUED, "a worker takes from its own queues only"
        await waiting.cancel()


async def test_a_router_brings_its_tasks(app: MakeApp) -> None:
    router = Router()

    @router.task(name="send")
    async def send(to: str) -> str:
        return f"sent to {to}"

    with pytest.raises(ConfigurationError, match="belongs to no application"):
        await send.enqueue("you")
    shop = app()
    shop.include(router, prefix="mail.", queue="mail")
    async with shop, shop.worker():
        job = await send.enqueue("you")
        assert (job.task, job.queue) == ("mail.send", "mail")
        assert await job.result(timeout=WAIT) == "sent to you"


@dataclass
class Till:
    open: bool = True
    log: list[str] = field(default_factory=list[str])


async def test_the_lifespan_gives_the_state(app: MakeApp) -> None:
    till = Till(open=False)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Till, None]:
        till.open = True
        yield till
        till.open = False

    shop = app(lifespan=lifespan)

    @shop.task
    async def sell(ctx: Context[Till], item: str) -> bool:
        ctx.state.log.append(item)
        return ctx.state.open

    async with shop:
        assert not till.open, "a producer does not enter it"
        async with shop.worker():
            assert await (await sell.enqueue("tea")).result(timeout=WAIT)
        assert not till.open
    assert till.log == ["tea"]


steps: list[str] = []


async def session(ctx: Context[None]) -> AsyncGenerator[str, None]:
    steps.append("opened")
    try:
        yield f"session of {ctx.task}"
    except ValueError:
        steps.append("rolled back")
        raise
    finally:
        steps.append("closed")


def greeting(db: str = Depends(session)) -> str:
    return f"hello from {db}"


async def test_dependencies_are_filled_in_and_closed(app: MakeApp) -> None:
    shop = app()
    steps.clear()

    @shop.task(name="shop.greet")
    async def greet(name: str, hello: str = Depends(greeting), db: str = Depends(session)) -> str:
        steps.append("ran")
        if name == "nobody":
            raise ValueError(name)
        return f"{hello}, {name}"

    async with shop, shop.worker():
        assert await (await greet.enqueue("you")).result(timeout=WAIT) == "hello from session of shop.greet, you"
        assert steps == ["opened", "ran", "closed"]
        steps.clear()
        with pytest.raises(JobFailed, match="nobody"):
            await (await greet.enqueue("nobody")).result(timeout=WAIT)
        assert steps == ["opened", "ran", "rolled back", "closed"]
        await shop.dead_letters().discard()


async def test_middleware_stands_around_calls_and_attempts(app: MakeApp) -> None:
    trail: list[str] = []

    class Tenant(Middleware):
        async def send(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
            call.kwargs["tenant"] = "acme"
            return await proceed()

        async def run(self, ctx: Context[Any], proceed: Callable[[], Awaitable[object]]) -> object:
            trail.append(f"before {ctx.task}")
            try:
                return await proceed()
            finally:
                trail.append(f"after {ctx.task}")

    class Twice(Middleware):
        async def run(self, ctx: Context[Any], proceed: Callable[[], Awaitable[object]]) -> object:
            trail.append("inner")
            return [await proceed()] * 2

    shop = app(middleware=[Tenant(), Twice()])

    @shop.task(name="shop.who")
    async def who(*, tenant: str = "") -> str:
        here = current()
        assert here is not None
        assert here.job_id == current_job_id.get()
        return tenant

    async with shop, shop.worker():
        job = await who.enqueue()
        assert list(await job.result(timeout=WAIT)) == ["acme", "acme"]
        many = await shop.enqueue_many(who.s() for _ in range(3))
        assert await gather(*many, timeout=WAIT) == [["acme", "acme"]] * 3
    assert trail[:3] == ["before shop.who", "inner", "after shop.who"]
    assert len(trail) == 12


async def test_events_tell_the_life_of_a_job(app: MakeApp) -> None:
    shop = app()
    heard: list[Event] = []
    last = asyncio.Event()

    @shop.on("*")
    async def note(event: Event) -> None:
        heard.append(event)
        if event.name in ("job.succeeded", "job.dead"):
            last.set()

    @shop.on("job.started")
    def clumsy(event: Event) -> None:
        raise RuntimeError("a listener's mistake is nobody's problem")

    exhausted: list[str] = []

    @shop.task(
        name="shop.try",
        max_retries=1,
        default_retry_delay=0.01,
        autoretry_for=(OSError,),
        on_exhausted=lambda event: exhausted.append(event.job_id),
    )
    async def attempt(ok: bool) -> bool:
        if not ok:
            raise OSError("no")
        return ok

    async with shop, shop.worker(name="anna"):
        good = await attempt.enqueue(True)
        await asyncio.wait_for(last.wait(), WAIT)
        last.clear()
        bad = await attempt.enqueue(False)
        await asyncio.wait_for(last.wait(), WAIT)
        await shop.dead_letters().discard()
    names = [event.name for event in heard if not event.job_id]
    assert names == ["worker.started", "worker.stopped"]
    for job, story in (
        (good, ["job.started", "job.succeeded"]),
        (bad, ["job.started", "job.retrying", "job.started", "job.exhausted", "job.failed", "job.dead"]),
    ):
        told = [event.name for event in heard if event.job_id == job.id]
        told.remove("job.enqueued")  # the producer says it, and a worker may be quicker to say that it has begun
        assert told == story
    retrying = next(event for event in heard if event.name == "job.retrying")
    assert (retrying.attempt, retrying.worker, retrying.state) == (1, "anna", State.RETRY)
    assert "OSError: no" in retrying.error
    assert exhausted == [bad.id]


async def test_every_occurrence_fires_once_however_many_workers(app: MakeApp) -> None:
    shop = app()
    ran: Counter[str] = Counter()
    enough = asyncio.Event()

    def count(ctx: Context[None]) -> None:
        ran[ctx.job_id] += 1
        names = {name: sum(job_id.startswith(f"cron-{name}-") for job_id in ran) for name in ("tick", "second")}
        if names["tick"] >= 6 and names["second"] >= 2:
            enough.set()

    @shop.every(0.25, name="tick")
    @shop.task
    async def tick(ctx: Context[None]) -> None:
        count(ctx)

    @shop.cron("* * * * * *", name="second", tz="Europe/Berlin")
    @shop.task
    async def second(ctx: Context[None]) -> None:
        count(ctx)

    async with shop, shop.worker(name="anna"), shop.worker(name="bob"):
        await asyncio.wait_for(enough.wait(), WAIT)
    assert set(ran.values()) == {1}
    for name, interval in (("tick", 250), ("second", 1000)):
        times = sorted(int(job_id.rpartition("-")[2]) for job_id in ran if job_id.startswith(f"cron-{name}-"))
        assert [later - earlier for earlier, later in pairwise(times)] == [interval] * (len(times) - 1), (
            f"{name} left an occurrence out"
        )
