"""Depends: asked once a job, in order, closed in reverse order, told of what went wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from streamq import ConfigurationError, Context, Depends, current, current_job_id
from streamq.client.router import Router
from streamq.client.task import Task

router = Router()
log: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


def context(**more: Any) -> Context[Any]:
    return Context(job_id="j1", task="t", queue="q", state={"name": "state"}, **more)


def run(task: Task[..., Any], *args: object, **kwargs: object) -> Any:
    return asyncio.run(task.run(context(), args, kwargs))  # type: ignore[arg-type]


def settings(ctx: Context[Any]) -> str:
    log.append(f"settings on {threading.current_thread() is threading.main_thread()}")
    return str(ctx.state["name"])


async def pool(settings: str = Depends(settings)) -> AsyncGenerator[str, None]:
    log.append("open pool")
    try:
        yield f"pool of {settings}"
    except ValueError as error:
        log.append(f"pool saw {error}")
        raise
    finally:
        log.append("close pool")


def session(pool: str = Depends(pool)) -> Generator[str, None, None]:
    log.append("open session")
    try:
        yield f"session of {pool}"
    except ValueError:
        log.append("session swallows")
    log.append("close session")


async def user(settings: str = Depends(settings)) -> str:
    return f"user of {settings}"


@router.task
async def work(ctx: Context[Any], fail: bool, s: str = Depends(session), u: str = Depends(user)) -> str:
    log.append(f"work for {ctx.job_id}")
    if fail:
        raise ValueError("no")
    return f"{s}, {u}"


@router.task
def in_a_thread(x: int, s: str = Depends(session)) -> tuple[int, str, str | None, bool]:
    ctx = current()
    assert ctx is not None
    return x, s, current_job_id.get(), threading.current_thread() is threading.main_thread()


def test_providers_are_asked_once_and_closed_in_reverse() -> None:
    assert run(work, False) == "session of pool of state, user of state"
    assert log == ["settings on False", "open pool", "open session", "work for j1", "close session", "close pool"]


def test_a_failure_is_thrown_into_all_of_them_and_swallowed_by_none() -> None:
    with pytest.raises(ValueError, match="no"):
        run(work, True)
    assert log[-4:] == ["session swallows", "close session", "pool saw no", "close pool"]


def test_a_plain_function_runs_in_a_thread_that_knows_its_job() -> None:
    assert run(in_a_thread, 1) == (1, "session of pool of state", "j1", False)
    assert current_job_id.get() is None


def test_a_plain_call_fills_in_what_is_missing() -> None:
    async def gives() -> str:
        return "given"

    @router.task
    async def local(x: int, y: str = Depends(gives)) -> str:
        return f"{x} {y}"

    @router.task
    def blocking(x: int, y: str = Depends(gives)) -> str:
        return f"{x} {y}"

    @router.task
    async def told(ctx: Context[Any], x: int) -> str:
        return f"{ctx.job_id} {x}"

    assert asyncio.run(local(1)) == "1 given"
    assert asyncio.run(local(1, y="mine")) == "1 mine"
    assert blocking(2) == "2 given"
    assert asyncio.run(told(3)) == "local 3"
    assert asyncio.run(told.fn(context(), 3)) == "j1 3"


def test_without_the_cache_a_provider_is_asked_each_time() -> None:
    async def number() -> int:
        log.append("asked")
        return len(log)

    @router.task
    async def sums(
        a: int = Depends(number, use_cache=False), b: int = Depends(number, use_cache=False), c: int = Depends(number)
    ) -> int:
        return a + b + c

    assert run(sums) == 6
    assert log == ["asked"] * 3


def test_what_was_opened_is_closed_when_a_later_provider_fails() -> None:
    async def broken(pool: str = Depends(pool)) -> str:
        raise ValueError("broken")

    @router.task
    async def never(b: str = Depends(broken)) -> None: ...

    with pytest.raises(ValueError, match="broken"):
        run(never)
    assert log[-2:] == ["pool saw broken", "close pool"]


def test_cancellation_closes_too() -> None:
    async def slow_close() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    @router.task
    async def waits(s: None = Depends(slow_close)) -> None:
        log.append("waiting")
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(waits.run(context(), (), {}))
        while not log:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["waiting", "closed"]


def test_a_failing_close_fails_the_job() -> None:
    async def leaves() -> AsyncGenerator[int, None]:
        yield 1
        raise OSError("commit failed")

    async def twice() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    def nothing() -> Generator[int, None, None]:
        yield from ()

    for provider, error, message in (
        (leaves, OSError, "commit failed"),
        (twice, RuntimeError, "yielded more than once"),
        (nothing, RuntimeError, "without a yield"),
    ):

        async def task(x: int = Depends(provider)) -> None: ...  # type: ignore[arg-type]

        task.__qualname__ = f"closing_{message}"
        with pytest.raises(error, match=message):
            run(router.task(task))


def test_circles_and_unanswerable_providers_are_refused() -> None:
    def one(x: int = 0) -> int:
        return x

    def two(x: int = Depends(one)) -> int:
        return x

    one.__defaults__ = (Depends(two),)

    async def task(x: int = Depends(two)) -> None: ...

    with pytest.raises(ConfigurationError, match=r"circle.*two -> .*one -> .*two"):
        router.task(task)

    def asks(url: str) -> str:
        return url

    async def other(x: str = Depends(asks)) -> None: ...

    with pytest.raises(ConfigurationError, match="parameter 'url' that nobody gives"):
        router.task(other)
    with pytest.raises(ConfigurationError, match="give a function"):
        Depends(3)  # type: ignore[call-overload]


def test_a_provider_that_yields_nothing_says_so() -> None:
    async def empty() -> AsyncGenerator[int, None]:
        for each in ():
            yield each

    def plain_empty() -> Generator[int, None, None]:
        yield from ()

    @router.task
    async def asks(x: int = Depends(empty)) -> None: ...

    @router.task
    async def asks_plainly(x: int = Depends(plain_empty)) -> None: ...

    for task, name in ((asks, "empty"), (asks_plainly, "plain_empty")):
        with pytest.raises(RuntimeError, match=rf"{name} ended without a yield"):
            run(task)
