"""The application that the demo's workers run: `streamq worker streamq.cli.demo.tasks:app`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from streamq.cli.trial.ledger import END, FAIL, START
from streamq.cli.trial.witness import go_with_parent, ledger
from streamq.client.context import Context
from streamq.client.router import Router
from streamq.worker.app import StreamQ

QUEUE: Final = "demo"
EVENTS: Final = 10_000_000  # the judge needs all of them
LEASE: Final = "2s"  # short, so that one sees the jobs of a killed worker come back

router = Router()


class Wobble(Exception):
    """The failure of a job that is meant to succeed in the end."""


class Doom(Exception):
    """The failure of a job that is meant to fail for good."""


@router.task(name="demo.fast", queue=QUEUE)
async def fast(ctx: Context[Any], key: str) -> str:
    """Return at once."""
    book = ledger()
    book.note(START, key, ctx.job_id, ctx.attempt)
    book.note(END, key, ctx.job_id, ctx.attempt)
    return key


@router.task(name="demo.slow", queue=QUEUE)
async def slow(ctx: Context[Any], key: str, seconds: float) -> str:
    """Wait, as for somebody else's server."""
    ledger().note(START, key, ctx.job_id, ctx.attempt)
    await asyncio.sleep(seconds)
    ledger().note(END, key, ctx.job_id, ctx.attempt)
    return key


@router.task(name="demo.flaky", queue=QUEUE, autoretry_for=(Wobble,), max_retries=5, default_retry_delay="300ms")
async def flaky(ctx: Context[Any], key: str, failures: int) -> str:
    """Fail a few times, then succeed."""
    ledger().note(START, key, ctx.job_id, ctx.attempt)
    if ctx.retries < failures:
        ledger().note(FAIL, key, ctx.job_id, ctx.attempt)
        raise Wobble(f"attempt {ctx.retries + 1} of {failures + 1}")
    ledger().note(END, key, ctx.job_id, ctx.attempt)
    return key


@router.task(name="demo.doomed", queue=QUEUE, autoretry_for=(Doom,), max_retries=1, default_retry_delay="200ms")
async def doomed(ctx: Context[Any], key: str) -> None:
    """Fail, fail again, and become a dead letter."""
    ledger().note(START, key, ctx.job_id, ctx.attempt)
    ledger().note(FAIL, key, ctx.job_id, ctx.attempt)
    raise Doom("as intended")


@router.every("1s", name="demo.tick", queue=QUEUE)
async def tick(ctx: Context[Any]) -> None:
    """Be fired once a second, by one of the workers."""
    key = f"cron-{ctx.job_id.rpartition('-')[2]}"
    ledger().note(START, key, ctx.job_id, ctx.attempt)
    ledger().note(END, key, ctx.job_id, ctx.attempt)


def application(url: str | None = None) -> StreamQ[Any]:
    """The application, for a worker (STREAMQ_URL) and for the one that enqueues."""
    made: StreamQ[Any] = StreamQ(url, namespace="demo", lease=LEASE, grace="5s", events=EVENTS)
    made.include(router)
    return made


app = application()
go_with_parent()
