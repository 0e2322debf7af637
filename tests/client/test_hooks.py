"""Events and middleware: heard in order, never in a job's way, and free when nobody listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamq import Call, ConfigurationError, Context, Event, Middleware
from streamq.client.hooks import Events, run_chain, send_chain


def test_listeners_hear_what_they_asked_for() -> None:
    events, heard = Events(), []
    assert not events.wants("job.started")
    events.on("job.started", lambda event: heard.append(("started", event.job_id)))
    events.on("*", lambda event: heard.append(("any", event.name)))
    assert events.wants("job.started")
    assert events.wants("worker.stopped")
    events.emit(Event(name="job.started", job_id="1"))
    events.emit(Event(name="worker.stopped"))
    assert sorted(heard) == [("any", "job.started"), ("any", "worker.stopped"), ("started", "1")]


def test_a_listener_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), []

    def broken(event: Event) -> None:
        raise ValueError("broken")

    events.on("job.started", broken)
    events.on("job.started", lambda event: heard.append(event.name))
    with caplog.at_level(logging.ERROR):
        events.emit(Event(name="job.started"))
    assert heard == ["job.started"]
    assert "broken" in caplog.text


async def test_async_listeners_are_tasks_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    events, heard, go = Events(), [], asyncio.Event()

    async def slow(event: Event) -> None:
        await go.wait()
        heard.append(event.job_id)

    async def broken(event: Event) -> None:
        raise ValueError("broken later")

    events.on("job.started", slow)
    events.on("job.started", broken)
    events.emit(Event(name="job.started", job_id="1"))
    assert heard == []
    go.set()
    await events.drain()
    assert heard == ["1"]
    assert "broken later" in caplog.text


class Named(Middleware):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    async def run(self, ctx: Context[Any], proceed: Callable[[], Awaitable[object]]) -> object:
        self.log.append(f"{self.name} before")
        result = await proceed()
        self.log.append(f"{self.name} after")
        return f"{self.name}({result})"


async def test_the_first_middleware_is_the_outermost() -> None:
    log: list[str] = []
    chain = run_chain([Named("a", log), Middleware(), Named("b", log)])
    assert chain is not None

    async def task() -> object:
        log.append("task")
        return "x"

    ctx = Context(job_id="j", task="t", queue="q", state=None)
    assert await chain(ctx, task) == "a(b(x))"
    assert log == ["a before", "b before", "task", "b after", "a after"]


def test_without_middleware_there_is_no_chain() -> None:
    assert run_chain([]) is None
    assert run_chain([Middleware()]) is None
    assert send_chain([Named("a", [])]) is None


async def test_the_send_side_may_change_the_call() -> None:
    class Tagging(Middleware):
        async def send(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
            call.kwargs["tag"] = "x"
            return await proceed()

    chain = send_chain([Tagging()])
    assert chain is not None
    call = Call("t", (), {})

    async def proceed() -> dict[str, Any]:
        return call.kwargs

    assert await chain(call, proceed) == {"tag": "x"}


def test_an_event_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"job\.faild is not a known event\. Did you mean job\.failed"):
        Events().on("job.faild", lambda event: None)


async def test_what_a_listener_starts_is_waited_for_too() -> None:
    events, heard = Events(), []

    async def hear(event: Event) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        if event.attempt < 3:
            events.emit(Event(name="job.started", attempt=event.attempt + 1))
        heard.append(event.attempt)

    events.on("job.started", hear)
    events.emit(Event(name="job.started", attempt=1))
    await events.drain()
    assert heard == [1, 2, 3]
