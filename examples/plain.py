"""A plain script: tasks, retries, a delayed job, an idempotency key, progress and a dead letter.

Nothing has to run beforehand; the server is embedded, and the worker lives inside the script:

    pip install 'streamq[embedded]'
    python examples/plain.py
"""

from __future__ import annotations

import asyncio

from streamq import Context, Job, JobFailed, Reject, StreamQ

app = StreamQ("embedded://", namespace="plain")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def shout(text: str) -> str:  # a plain function runs in a thread
    return text.upper()


@app.task(max_retries=3, autoretry_for=(ConnectionError,), default_retry_delay=0.05)
async def fetch(ctx: Context[None], url: str) -> str:
    if ctx.attempt < 3:
        raise ConnectionError("the line is dead")
    return f"{url} on attempt {ctx.attempt}"


@app.task
async def resize(ctx: Context[None], pages: int) -> int:
    for page in range(1, pages + 1):
        await ctx.progress(page, total=pages, note=f"page {page}")
    seen.set()
    await resumed.wait()
    return pages


@app.task
async def charge(customer: int) -> None:
    raise Reject(f"customer {customer} is gone")


seen, resumed = asyncio.Event(), asyncio.Event()


async def follow(job: Job[int]) -> None:
    """Look at a running job from outside, then let it go on."""
    await seen.wait()
    progress = await job.progress()
    assert progress is not None
    print(f"progress: {progress.done:g} of {progress.total:g}, {progress.note}")
    resumed.set()


async def main() -> None:
    async with app, app.worker(concurrency=10):
        print("add:", await (await add.enqueue(2, 3)).result(timeout=5))
        print("shout:", await (await shout.enqueue("hey")).result(timeout=5))
        print("retries:", await (await fetch.enqueue("example.org")).result(timeout=5))

        later = await add.using(countdown=0.2).enqueue(20, 22)
        print("delayed:", await later.status(), "then", await later.result(timeout=5))

        keyed = add.using(idempotency_key="order-7")
        first, second = await keyed.enqueue(3, 4), await keyed.enqueue(3, 4)
        print("idempotent:", first == second, second.deduplicated, await second.result(timeout=5))

        pages = await resize.enqueue(3)
        await follow(pages)
        print("resized:", await pages.result(timeout=5))

        try:
            await (await charge.enqueue(42)).result(timeout=5)
        except JobFailed as error:
            letter = await app.dead_letters().show(error.job_id)
            print("dead letter:", letter.reason, "-", letter.error)


if __name__ == "__main__":
    asyncio.run(main())
