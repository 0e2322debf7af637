"""The application of every fault test: what its tasks do is written to the ledger, whatever happens to them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from pathlib import Path
from typing import Any

from streamq import Event, Retry, StreamQ, current
from streamq.core.clock import ServerClock
from tests.faults.ledger import COMMIT, START, attempt, ledger_of

LEASE = 1.0
EVENTS = 1_000_000  # so that the history forgets nothing of a test


def crunch(key: str, seconds: int) -> str:
    """As `grip`, in a child process."""
    ctypes.PyDLL(None).sleep(seconds)
    return key


def application(url: str, namespace: str, folder: Path, **settings: Any) -> StreamQ[Any]:
    """All tasks under their own names, with short leases."""
    given = {"lease": LEASE, "events": EVENTS, "timeout": 20.0, "result_ttl": "10m", **settings}
    app: StreamQ[Any] = StreamQ(url, namespace=namespace, **given)
    ledger = ledger_of(folder)
    app.on("job.succeeded")(lambda event: ledger.note(COMMIT, "-", event.job_id))

    @app.task(name="work")
    async def work(key: str, seconds: float = 0.0, again: float = -1.0) -> str:
        """It takes so long; `again`, if that is given, when it is not the first attempt."""
        ctx = current()
        assert ctx is not None
        with attempt(ledger, key):
            await asyncio.sleep(seconds if ctx.attempt == 1 or again < 0 else again)
            return key

    @app.task(name="hold")
    async def hold(key: str) -> str:
        """Until the test says go."""
        with attempt(ledger, key):
            while not (folder / "go").exists():
                await asyncio.sleep(0.01)  # here it waits
            return key

    @app.task(name="grip")
    async def grip(key: str, seconds: int) -> str:
        """C code that lets no other thread run, as a sum of a range."""
        with attempt(ledger, key):
            ctypes.PyDLL(None).sleep(seconds)
            return key

    app.task(name="crunch", executor="process")(crunch)

    @app.on("job.started")
    def started(event: Event) -> None:
        if event.task == "crunch":
            ledger.note(START, "c", event.job_id, event.attempt)

    @app.task(name="endless")
    async def endless(key: str) -> None:
        with attempt(ledger, key):
            while True:
                pass

    @app.task(name="poison")
    async def poison(key: str) -> None:
        with attempt(ledger, key):
            await asyncio.sleep(0.2)  # until its neighbours run
            os._exit(9)

    @app.task(name="flaky", max_retries=5)
    async def flaky(key: str, fails: int) -> str:
        ctx = current()
        with attempt(ledger, key):
            if ctx is not None and ctx.retries < fails:
                raise Retry(countdown=0.01)
            return key

    @app.task(name="echo")
    async def echo(value: bytes) -> bytes:
        return value

    return app


def ticking(url: str, namespace: str, folder: Path, *, period: float, **settings: Any) -> StreamQ[Any]:
    """The same with a schedule whose every occurrence is to be fired."""
    app = application(url, namespace, folder, **settings)
    ledger = ledger_of(folder)

    @app.every(period, name="tick", catch_up="all")
    @app.task(name="tick")
    async def tick() -> None:
        ctx = current()
        assert ctx is not None
        with attempt(ledger, ctx.job_id):
            pass

    return app


def skewed(
    url: str, namespace: str, folder: Path, *, ahead: float, synced: bool = True, **settings: Any
) -> StreamQ[Any]:
    """On a machine whose clock is `ahead` seconds ahead; not `synced`: it never learns of the server's."""
    told = time.time
    time.time = lambda: told() + ahead
    app = ticking(url, namespace, folder, **settings)
    app.broker.clock = (ServerClock if synced else Deaf)(time.time)
    return app


class Deaf(ServerClock):
    def sync(self, server_ms: int, sent: float, received: float) -> None:
        """It hears nothing."""
