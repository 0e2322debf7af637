"""What Celery users type, on streamq: delay, apply_async, countdown, retry, beat_schedule, synchronous callers.

    pip install 'streamq[embedded]'
    python examples/celery_habits.py

In production the worker is a process of its own: `streamq worker celery_habits:app`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from streamq import Context, StreamQ, crontab

app = StreamQ(
    "embedded://",
    namespace="habits",
    beat_schedule={
        "nightly report": {"task": "shop.report", "schedule": crontab(hour=3, minute=0), "args": ("night",)},
        "pulse": {"task": "shop.pulse", "schedule": 1.0},
    },
)
pulsed = asyncio.Event()


@app.task(name="shop.add")
async def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.report")
async def report(kind: str) -> str:
    return f"the {kind} report"


@app.task(name="shop.pulse")
async def pulse() -> None:
    pulsed.set()


@app.task(name="shop.pay", max_retries=2, default_retry_delay=0.05)
async def pay(ctx: Context[None], order: int) -> str:
    if ctx.request.retries == 0:
        await ctx.retry(countdown=0.05, reason="the bank does not answer")
    return f"order {order} paid after {ctx.request.retries} retry"


def view(order: int) -> str:
    """A Django view, a thread, a script: code without an event loop."""
    job = pay.enqueue_sync(order)
    return job.get(timeout=5)


async def main() -> None:
    async with app, app.worker(concurrency=10):
        print("delay:", await (await add.delay(2, 3)).result(timeout=5))

        later = await add.apply_async((20, 22), countdown=0.1)
        print("countdown:", await later.result(timeout=5))

        soon = datetime.now(UTC) + timedelta(milliseconds=100)
        print("eta:", await (await report.apply_async(kwargs={"kind": "late"}, eta=soon)).result(timeout=5))

        print("send_task:", await (await app.send_task("shop.add", (1, 1), priority=9)).result(timeout=5))
        print("signature:", await (await add.s(4, 5).enqueue()).result(timeout=5))
        print("enqueue_sync:", await asyncio.to_thread(view, 7))

        await asyncio.wait_for(pulsed.wait(), timeout=5)
        print("beat: the pulse was felt")


if __name__ == "__main__":
    asyncio.run(main())
