"""What is measured: one coroutine a scenario, from a `Stage` to a `Sample`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamq.cli.bench.figures import Sample
from streamq.cli.bench.server import Reading, forget, reading
from streamq.cli.bench.tasks import add, app
from streamq.cli.bench.worker import STUCK, working
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.client.partial import Signature
from streamq.worker.alive import causes

CALL: Final = 50_000  # jobs an enqueue_many: it answers with a handle for each of them
CHUNK: Final = 500  # jobs a round trip of enqueue_many
AWAITED: Final = 1_000  # jobs that are awaited one by one, at most
AWAITING: Final = 10.0  # seconds at most
WARM_UP: Final = 0.1  # of the jobs that are awaited; they are not counted


@dataclass(slots=True)
class Stage:
    """What a scenario works with. The progress bar shows `done` of `total`, and what it is `doing`."""

    jobs: int
    concurrency: int
    done: int = 0
    total: int = 0  # 0: the jobs
    doing: str = ""

    def counted(self, first: int, last: int) -> Iterator[Signature[Any]]:
        """Calls, counted as they are taken."""
        for i in range(first, last):
            self.done = i
            yield add.s(i, 1)


def sample(
    before: Reading,
    after: Reading,
    jobs: int,
    *,
    since: float = 0.0,
    worker: float | None = None,
    times: Sequence[float] = (),
) -> Sample:
    """What happened between two readings; `since` is when the jobs began, `worker` what it spent on them (seconds)."""
    spent = {
        "producer": after.producer - before.producer,
        "worker": worker,
        "server": _between(before.server, after.server),
    }
    return Sample(
        jobs,
        after.asked - (since or before.answered),
        {name: cpu for name, cpu in spent.items() if cpu is not None},
        _between(before.server_thread, after.server_thread),
        after.machine - before.machine,
        times,
    )


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


async def enqueue(stage: Stage) -> Sample:
    """As many coroutines as `concurrency` enqueue, each one job after the other."""
    await add.enqueue(0, 0)
    numbers = iter(range(stage.jobs))

    async def produce() -> None:
        for i in numbers:
            await add.enqueue(i, 1)
            stage.done = i

    before = await reading()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(stage.concurrency):
                group.create_task(produce())
    except BaseExceptionGroup as group:
        raise next(causes(group)) from None
    found = sample(before, await reading(), stage.jobs)
    await forget()
    return found


async def bulk(stage: Stage) -> Sample:
    """enqueue_many."""
    await add.enqueue(0, 0)
    before = await reading()
    await _filled(stage)
    found = sample(before, await reading(), stage.jobs)
    await forget()
    return found


async def _filled(stage: Stage) -> list[str]:
    ids: list[str] = []
    for first in range(0, stage.jobs, CALL):
        made = await app.enqueue_many(stage.counted(first, min(first + CALL, stage.jobs)), CHUNK)
        ids += [job.id for job in made]
    return ids


async def drain(stage: Stage) -> Sample:
    """Jobs that are queued before the worker begins: from the first start until none is left."""
    stage.total, stage.doing = 2 * stage.jobs, "filling"
    ids = await _filled(stage)
    async with working(stage.concurrency) as hand:
        stage.doing = ""
        before = await reading()
        hand.go()
        await _drained(stage)
        after = await reading()
        first, start, end = await hand.usage()
    await forget(ids)
    return sample(before, after, stage.jobs, since=first, worker=end - start)


async def _drained(stage: Stage) -> None:
    begun = moved = time.perf_counter()
    left = stage.jobs
    while True:
        info = await app.queue().info()
        if info.dead:
            raise Stopped(Screen(f"{info.dead} jobs failed for good"), Exit.FAILED)
        now, seen = time.perf_counter(), info.queued + info.running
        if not seen:
            return
        if seen < left:
            left, moved = seen, now
        elif now - moved > STUCK:
            raise Stopped(Screen(f"the worker ran no job for {STUCK:g} s, {left} are left"), Exit.TIMED_OUT)
        ended = stage.jobs - left
        stage.done = stage.jobs + ended
        # Half of the time left, at this pace: near the end it looks often, before that it costs nothing.
        pause = (now - begun) * left / ended / 2 if ended else 0.01
        await asyncio.sleep(min(0.1, max(0.002, pause)))


async def round_trip(stage: Stage) -> Sample:
    """One job at a time: from before its enqueue to its awaited result."""
    jobs = min(stage.jobs, AWAITED)
    warm_up = 1 + int(jobs * WARM_UP)
    stage.total = jobs + warm_up
    ids: list[str] = []
    times: list[float] = []

    async def one(i: int) -> None:
        begun = time.perf_counter()
        job = await add.enqueue(i, 1)
        await job.result(timeout=STUCK)
        times.append((time.perf_counter() - begun) * 1000)
        ids.append(job.id)
        stage.done += 1

    async with working(stage.concurrency) as hand:
        hand.go()
        for i in range(warm_up):
            await one(i)
        *_, start = await hand.usage()
        times.clear()
        before = await reading()
        for i in range(jobs):
            await one(i)
            if time.perf_counter() - before.answered > AWAITING:
                break
        after = await reading()
        *_, end = await hand.usage()
    await forget(ids)
    return sample(before, after, len(times), worker=end - start, times=times)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How it is run, and how many round trips a job needs one after the other at that concurrency."""

    run: Callable[[Stage], Awaitable[Sample]]
    trips: Callable[[int], float]


RUNS: Final = {
    "enqueue": Scenario(enqueue, lambda concurrency: 1 / min(concurrency, CHUNK)),
    "bulk": Scenario(bulk, lambda _: 1 / CHUNK),
    "drain": Scenario(drain, lambda concurrency: 1 / concurrency),
    # To Redis and on to the worker, and back to Redis and on to the producer.
    "round-trip": Scenario(round_trip, lambda _: 2.0),
}
