"""Callers that go away at one of their awaits, the n-th, and not somewhere by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from enum import Enum, auto
from functools import partial
from itertools import count
from types import coroutine
from typing import Any


class Moment(Enum):
    """When, at that await."""

    SENT = auto()  # as soon as it waits: what it sent is on its way, and nothing else has run since
    WAITING = auto()  # one pass of the loop later
    ANSWERED = auto()  # what it waits for has come, and it has not seen it: before it sends the next thing


def cancelled_at(call: Coroutine[Any, Any, object], at: int, moment: Moment) -> asyncio.Task[None]:
    """A task that makes a call, and is cancelled at the call's await number `at`."""

    async def caller() -> None:  # a task takes no generator
        await _stepped(call, at, moment)

    return asyncio.create_task(caller())


async def was_cancelled(caller: asyncio.Task[None]) -> bool:
    """False if the call came to its end before. It may neither raise anything else nor swallow the cancellation."""
    await asyncio.wait([caller])
    if not caller.cancelled():
        caller.result()
    assert caller.cancelled() == (caller.cancelling() > 0)
    return caller.cancelled()


@coroutine
def _stepped(call: Coroutine[Any, Any, object], at: int, moment: Moment) -> Generator[Any, Any, None]:
    task = asyncio.current_task()
    assert task is not None
    resume = partial(call.send, None)
    for number in count():
        try:
            awaited = resume()
        except StopIteration:
            return
        if number == at:
            _cancel(task, awaited, moment)
        try:
            yield awaited
            resume = partial(call.send, None)
        except BaseException as error:
            resume = partial(call.throw, error)


def _cancel(task: asyncio.Task[Any], awaited: asyncio.Future[Any] | None, moment: Moment) -> None:
    if moment is Moment.SENT:
        task.cancel()
    elif moment is Moment.WAITING or awaited is None:  # sleep(0) awaits no future
        asyncio.get_running_loop().call_soon(task.cancel)
    else:
        awaited.add_done_callback(lambda _: task.cancel())  # before the task's own, which resumes it
