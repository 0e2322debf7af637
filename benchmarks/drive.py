"""`python -m benchmarks.drive CONTENDER VERB`: the producer's side, in the environment of the contender.

Prints one JSON object. The verb `worker` becomes the contender's worker instead. Read from the environment: BENCH_URL,
BENCH_MARKS, BENCH_JOBS, BENCH_RATE (jobs a second, `load`), BENCH_CONCURRENCY (`worker`). All times are
time.perf_counter() in seconds, or durations in milliseconds.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

from benchmarks import marks

PATIENCE = 300.0  # seconds for all jobs to end
START_UP = 60.0  # seconds for a worker to take its first job
SAMPLING = 60.0  # seconds for one-at-a-time samples: a slow system gives fewer of them
POLL = 0.002
GAP = 0.005  # between two samples
ABREAST = 100  # coroutines that enqueue
DUE_FROM, DUE_OVER = 3.0, 5.0  # `delayed`: 1,000 enqueues have two seconds, one more passes, then five of due jobs

clock = time.perf_counter
Answer = dict[str, Any]
Many = Callable[[int], Awaitable[None]]
T = TypeVar("T")


class Producer(Protocol):
    """See `contenders/__init__.py`."""

    async def enqueue(self, i: int, y: int) -> Any: ...
    async def left(self) -> int: ...
    async def close(self) -> None: ...
    @property
    def enqueue_many(self) -> Many | None: ...
    @property
    def enqueue_naps(self) -> Many | None: ...
    @property
    def enqueue_in(self) -> Callable[[float, int], Awaitable[Any]] | None: ...
    @property
    def result(self) -> Callable[[Any], Awaitable[int]] | None: ...


class Unsupported(Exception):
    """The contender has no such thing."""


def needed(what: str, capability: T | None) -> T:
    if capability is None:
        raise Unsupported(f"no {what}")
    return capability


# ---- putting in ------------------------------------------------------------------------------------------------------


async def one_by_one(producer: Producer, jobs: int) -> None:
    for i in range(jobs):
        await producer.enqueue(i, 1)


async def abreast(producer: Producer, jobs: int) -> None:
    numbers = iter(range(jobs))

    async def produce() -> None:
        for i in numbers:
            await producer.enqueue(i, 1)

    await asyncio.gather(*(produce() for _ in range(ABREAST)))


async def in_bulk(producer: Producer, jobs: int) -> None:
    await needed("bulk call", producer.enqueue_many)(jobs)


def timed(put_in: Callable[[Producer, int], Awaitable[None]]) -> Callable[[Producer, int], Awaitable[Answer]]:
    async def verb(producer: Producer, jobs: int) -> Answer:
        await producer.enqueue(0, 0)
        start, cpu = clock(), time.process_time()
        await put_in(producer, jobs)
        return {"per_second": jobs / (clock() - start), "cpu_us": (time.process_time() - cpu) / jobs * 1e6}

    return verb


async def fill(producer: Producer, jobs: int) -> Answer:
    await (abreast if producer.enqueue_many is None else in_bulk)(producer, jobs)
    return {}


async def naps(producer: Producer, jobs: int) -> Answer:
    await needed("jobs that sleep", producer.enqueue_naps)(jobs)
    return {}


async def burns(producer: Producer, jobs: int) -> Answer:
    await needed("jobs that compute", getattr(producer, "enqueue_burns", None))(jobs)
    return {}


# ---- seeing them start and end ---------------------------------------------------------------------------------------


async def started(i: int, deadline: float) -> float:
    """When job `i` started. Its mark is its time, so looking seldom costs no accuracy, and no core."""
    starts = marks.read()
    while not (start := starts[i]):
        if clock() > deadline:
            raise TimeoutError(f"job {i} has not started in time")
        await asyncio.sleep(POLL)
    return start


async def finished(producer: Producer, deadline: float) -> float:
    """When nothing was left."""
    while left := await producer.left():
        if clock() > deadline:
            raise TimeoutError(f"{left} jobs are not acknowledged in time")
        await asyncio.sleep(POLL)
    return clock()


async def watch(producer: Producer, jobs: int) -> Answer:
    deadline = clock() + PATIENCE
    starts = [await started(i, deadline) for i in range(jobs)]
    return {"first": min(starts), "last_start": max(starts), "acknowledged": await finished(producer, deadline)}


async def end_to_end(producer: Producer, jobs: int) -> Answer:
    begun = clock()
    await abreast(producer, jobs)
    return {"begun": begun, **await watch(producer, jobs)}


async def warm(producer: Producer, jobs: int) -> Answer:
    deadline = clock() + START_UP
    await producer.enqueue(0, 0)
    await started(0, deadline)
    await finished(producer, deadline)
    cast("memoryview[float]", marks.read())[0] = 0.0
    return {}


async def left(producer: Producer, jobs: int) -> Answer:
    return {"left": await producer.left()}


# ---- one at a time, and in step --------------------------------------------------------------------------------------


async def sampled(jobs: int, sample: Callable[[int], Awaitable[float]]) -> list[float]:
    found: list[float] = []
    until = clock() + SAMPLING
    for i in range(jobs):
        found.append(await sample(i) * 1e3)
        if clock() > until:
            break
        await asyncio.sleep(GAP)
    return found


async def latency(producer: Producer, jobs: int) -> Answer:
    async def sample(i: int) -> float:
        before = clock()
        await producer.enqueue(i, 1)
        return await started(i, before + PATIENCE) - before

    return {"start_ms": await sampled(jobs, sample)}


async def round_trip(producer: Producer, jobs: int) -> Answer:
    result = needed("results", producer.result)

    async def sample(i: int) -> float:
        before = clock()
        found = await result(await producer.enqueue(i, 1))
        took = clock() - before
        if found != i + 1:
            raise ValueError(f"add({i}, 1) gave {found!r}")
        return took

    return {"round_trip_ms": await sampled(jobs, sample)}


async def delayed(producer: Producer, jobs: int) -> Answer:
    enqueue_in = needed("delays", producer.enqueue_in)
    begun = clock()
    due: list[float] = []
    for i in range(jobs):
        now = clock()
        due.append(begun + DUE_FROM + i * DUE_OVER / jobs)
        if due[i] <= now:
            raise TimeoutError(f"job {i} was due before it was enqueued: {i / (now - begun):.0f} enqueues a second")
        await enqueue_in(due[i] - now, i)
    return {"late_ms": [(await started(i, clock() + PATIENCE) - due[i]) * 1e3 for i in range(jobs)]}


async def load(producer: Producer, jobs: int) -> Answer:
    """Open loop: a job that goes late, or starts late, counts from the time it was scheduled for."""
    rate = float(os.environ["BENCH_RATE"])
    slots = asyncio.Semaphore(ABREAST)
    begun = clock() + 0.1

    async def send(i: int) -> None:
        await producer.enqueue(i, 1)
        slots.release()

    async with asyncio.TaskGroup() as group:
        for i in range(jobs):
            while clock() < begun + i / rate:
                await asyncio.sleep(0.001)
            await slots.acquire()
            group.create_task(send(i))
    deadline = clock() + PATIENCE
    return {"start_ms": [(await started(i, deadline) - begun - i / rate) * 1e3 for i in range(jobs)]}


VERBS: dict[str, Callable[[Producer, int], Awaitable[Answer]]] = {
    "enqueue_sequential": timed(one_by_one),
    "enqueue_concurrent": timed(abreast),
    "enqueue_bulk": timed(in_bulk),
    "fill": fill,
    "naps": naps,
    "burns": burns,
    "watch": watch,
    "end_to_end": end_to_end,
    "warm": warm,
    "left": left,
    "latency": latency,
    "round_trip": round_trip,
    "delayed": delayed,
    "load": load,
}


async def drive(contender: Any, verb: str, out: Any) -> None:
    producer: Producer = await contender.open_producer(os.environ["BENCH_URL"])
    try:
        answer = await VERBS[verb](producer, int(os.environ["BENCH_JOBS"]))
    except Unsupported as error:
        answer = {"unsupported": str(error)}
    print(json.dumps(answer), file=out, flush=True)
    await producer.close()


def main(name: str, verb: str) -> None:
    contender = importlib.import_module(f"benchmarks.contenders.{name}")
    if verb == "worker":  # the same process, so that its number and its memory are the worker's
        arguments = contender.worker(int(os.environ["BENCH_CONCURRENCY"]))
        os.execv(sys.executable, [sys.executable, *arguments])
    import uvloop

    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    uvloop.run(drive(contender, verb, out))


if __name__ == "__main__":
    main(*sys.argv[1:])
