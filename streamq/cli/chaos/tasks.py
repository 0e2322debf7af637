"""The application that the workers of `streamq chaos` run: `streamq worker streamq.cli.chaos.tasks:app`."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from streamq.cli.trial.ledger import ACKED, COMMIT, FAIL, INTENT, START, UP
from streamq.cli.trial.witness import FOLDER, attempt, go_with_parent, ledger
from streamq.client.context import Context
from streamq.client.hooks import Event
from streamq.client.router import Router
from streamq.worker.app import StreamQ

QUEUE: Final = "chaos"
EVENTS: Final = 10_000_000  # the judge needs all of them
MAX_CRASHES: Final = 3
POISONED: Final = 86  # the exit code of a worker that took the poison

router = Router()


class Wobble(Exception):
    """The failure of a job that is meant to succeed in the end."""


@router.task(name="chaos.work", queue=QUEUE)
async def work(ctx: Context[Any], key: str, seconds: float) -> str:
    """Wait, as for somebody else's server."""
    with attempt(ctx, key):
        await asyncio.sleep(seconds)
    return key


@router.task(name="chaos.flaky", queue=QUEUE, autoretry_for=(Wobble,), max_retries=5, default_retry_delay="200ms")
async def flaky(ctx: Context[Any], key: str, seconds: float, failures: int) -> str:
    """Fail a few times, then succeed."""
    if ctx.retries < failures:
        ledger().note(START, key, ctx.job_id, ctx.attempt)
        ledger().note(FAIL, key, ctx.job_id, ctx.attempt)
        raise Wobble(f"attempt {ctx.retries + 1} of {failures + 1}")
    return await work.fn(ctx, key, seconds)  # type: ignore[no-any-return]


@router.task(name="chaos.parent", queue=QUEUE)
async def parent(ctx: Context[Any], key: str, seconds: float) -> str:
    """Enqueue another job; whoever runs this one again gets the same one, by its idempotency key."""
    child = f"child-of-{key}"
    with attempt(ctx, key) as book:
        book.note(INTENT, child)
        job = await work.using(idempotency_key=child).enqueue(child, seconds)
        book.note(ACKED, child, job.id)
        await asyncio.sleep(seconds)
    return key


@router.task(name="chaos.poison", queue=QUEUE)
async def poison(ctx: Context[Any], key: str, seconds: float) -> None:
    """Take the worker down, with all that runs beside this job."""
    with attempt(ctx, key):
        await asyncio.sleep(seconds)
        os._exit(POISONED)


def application(url: str | None = None, **settings: Any) -> StreamQ[Any]:
    """For a worker, which reads STREAMQ_URL, _NAMESPACE and _LEASE, and for the one that enqueues."""
    made: StreamQ[Any] = StreamQ(url, grace="5s", max_crashes=MAX_CRASHES, events=EVENTS, result_ttl="1h", **settings)
    made.include(router)
    if FOLDER in os.environ:
        book = ledger()

        @made.on("worker.started")
        def up(_: Event) -> None:
            book.note(UP, "-")

        @made.on("job.succeeded")
        def counts(event: Event) -> None:
            book.note(COMMIT, "-", event.job_id)

    return made


app = application()
go_with_parent()
