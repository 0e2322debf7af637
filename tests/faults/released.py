"""A program of its own, for whatever release of streamq its PYTHONPATH names: works, produces, or reads results.

python released.py FOLDER_OF_RELEASE work|produce|read URL NAMESPACE FOLDER [...]

It speaks to nothing but the public face of streamq, and writes the ledger by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import streamq
from streamq import Retry, StreamQ, current

RELEASE, MODE, URL, NAMESPACE, FOLDER, *REST = sys.argv[1:]
assert streamq.__file__.startswith(RELEASE + os.sep), streamq.__file__
LEDGER = os.open(os.path.join(FOLDER, f"{os.getpid()}.ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
app = StreamQ(URL, namespace=NAMESPACE, lease=1.0, timeout=20.0, result_ttl="10m")


def note(event, key, job_id="-", attempt=0):
    os.write(LEDGER, f"{event} {key} {job_id} {attempt} {time.time_ns()}\n".encode())


@app.on("job.succeeded")
def succeeded(event):
    note("COMMIT", "-", event.job_id)


async def attempt(key, fails):
    ctx = current()
    note("START", key, ctx.job_id, ctx.attempt)
    try:
        await asyncio.sleep(0.02)
        if ctx.retries < fails:
            raise Retry(countdown=0.05)
    except BaseException:
        note("ABORT", key, ctx.job_id, ctx.attempt)
        raise
    note("END", key, ctx.job_id, ctx.attempt)
    return key


@app.task(name="work")
async def work(key, seconds=0.0):
    return await attempt(key, 0)


@app.task(name="flaky", max_retries=9)
async def flaky(key, fails):
    return await attempt(key, fails)


async def produce(name, most):
    """One job after the other, of each kind in turn, until there is a file `enough`."""
    kinds = [
        lambda key: work.s(key),
        lambda key: flaky.s(key, 2).using(headers={"by": name}),
        lambda key: work.s(key).using(countdown=0.2, expires=60),
        lambda key: work.s(key).using(idempotency_key=key, priority=3),
    ]
    async with app:
        for n in range(int(most)):
            if os.path.exists(os.path.join(FOLDER, "enough")):
                return
            key = f"{name}{n}"
            note("INTENT", key)
            job = await kinds[n % len(kinds)](key).enqueue()
            note("ACKED", key, job.id)
            await asyncio.sleep(0.01)


async def read(path):
    """The results of jobs, a line each, as `key id`."""
    with open(path) as lines:
        keys = dict(reversed(line.split()) for line in lines)
    async with app:
        results = await asyncio.gather(*(app.job(job_id, queue="default").result(timeout=20) for job_id in keys))
    assert results == list(keys.values())


async def up():
    worker = app.worker(handle_signals=True, concurrency=10, grace=10.0)
    app.on("worker.started")(lambda _: open(os.path.join(FOLDER, f"{os.getpid()}.up"), "w").close())
    async with app:
        await worker.run()


asyncio.run({"work": up, "produce": produce, "read": read}[MODE](*REST))
