"""Opening, closing, forking, changing loops: whoever waits is answered, and the next one finds it in order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from streamq import BrokerError, Event, StreamQ
from streamq.client.sync import Portal

MakeApp = Callable[..., StreamQ[Any]]

LONG = 10  # seconds: what takes as long has no end


def shop(app: StreamQ[Any]) -> Any:
    @app.task(name="add")
    async def add(x: int) -> int:
        return x

    return add


LEFT_OPEN = """
import asyncio
import sys

from streamq import ResultTimeout, StreamQ

app = StreamQ(sys.argv[1], namespace=sys.argv[2])

@app.task(name="add")
async def add(x):
    return x

async def use():
    job = await add.enqueue(1)
    try:
        await job.result(timeout=0.01)
    except ResultTimeout:
        print("used")

asyncio.run(use())
asyncio.run(app.close())
asyncio.run(use())
asyncio.run(app.close())
print("closed")
"""


def test_an_application_that_was_left_open_can_be_closed_in_the_next_loop(url: str, namespace: str) -> None:
    command = [sys.executable, "-c", LEFT_OPEN, url, namespace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["used", "used", "closed"], done.stderr


async def test_a_forked_child_can_close_what_its_parent_is_using(app: MakeApp) -> None:
    made = app()
    add = shop(made)
    await made.open()
    sending = asyncio.ensure_future(add.enqueue(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            asyncio.events._set_running_loop(None)
            threading.Timer(LONG, os._exit, (2,)).start()
            asyncio.run(made.close())
            code = 0
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (await sending).id


async def test_closing_while_it_is_being_opened(app: MakeApp) -> None:
    made = app()
    add = shop(made)
    going, may_go = asyncio.Event(), asyncio.Event()
    opens = made.broker.open

    async def slowly(*args: Any, **kwargs: Any) -> None:
        going.set()
        await may_go.wait()
        await opens(*args, **kwargs)

    made.broker.open = slowly  # type: ignore[method-assign]
    first = asyncio.ensure_future(made.open())
    await going.wait()
    second = asyncio.ensure_future(add.enqueue(1))
    await asyncio.sleep(0)
    await made.close()
    may_go.set()
    with pytest.raises(BrokerError, match="closed while it was being opened"):
        await first
    assert (await second).id  # it opens the application again
    assert (await add.enqueue(2)).id


async def test_listeners_of_what_was_sent_last_have_ended_when_the_application_is_closed(app: MakeApp) -> None:
    made = app()
    add = shop(made)
    heard: list[str] = []

    @made.on("job.enqueued")
    async def hear(event: Event) -> None:
        if event.job_id != "last":
            await add.using(job_id="last").enqueue(2)
        for _ in range(100):
            await asyncio.sleep(0)
        heard.append(event.job_id)

    await made.open()
    sending = asyncio.ensure_future(add.using(job_id="first").enqueue(1))
    await asyncio.sleep(0)
    await made.close()
    assert heard == ["first", "last"]
    await sending


def test_a_blocking_call_is_answered_when_the_portal_is_closed() -> None:
    async def nothing() -> None: ...

    portal = Portal(nothing)
    begun = threading.Event()
    errors: list[BaseException] = []

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            portal.run(endless)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(LONG)
    portal.close()
    thread.join(LONG)
    assert [type(error) for error in errors] == [BrokerError]
    assert "closed while a blocking call" in str(errors[0])


def test_blocking_calls_race_with_closing() -> None:
    async def nothing() -> None: ...

    portal = Portal(nothing)
    rounds = 300
    answers: list[object] = []

    async def work() -> str:
        return "done"

    def call() -> None:
        for _ in range(rounds):
            try:
                answers.append(portal.run(work))
            except BrokerError:
                answers.append("closed")

    threads = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and len(answers) < 3 * rounds:
        portal.close()
    for thread in threads:
        thread.join(LONG)
    portal.close()
    assert len(answers) == 3 * rounds
