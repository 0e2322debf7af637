"""Several queues in one worker: no lane may spin, starve or stop while slots are free."""

from __future__ import annotations

import asyncio
import time

from tests.conftest import MakeApp


async def test_two_busy_queues_share_one_slot_without_spinning(app: MakeApp) -> None:
    here = app()

    @here.task
    async def rest(queue: str) -> str:
        await asyncio.sleep(0.02)
        return queue

    async with here:
        jobs = [await rest.using(queue=queue).enqueue(queue) for _ in range(10) for queue in ("one", "two", "three")]
        cpu = time.process_time()
        async with here.worker(queues={"one": 3, "two": 1, "three": 1}, concurrency=1):
            # A spinning lane never yields: without the guard this hangs here at 100 % of a core.
            assert [await job.result(timeout=20) for job in jobs] == ["one", "two", "three"] * 10
        assert time.process_time() - cpu < 1.0


async def test_many_jobs_on_two_queues_all_end(app: MakeApp) -> None:
    here = app()

    @here.task
    async def echo(number: int) -> int:
        return number

    async with here:
        jobs = await here.enqueue_many(echo.using(queue=f"q{n % 2}").s(n) for n in range(1_000))
        async with here.worker(queues=["q0", "q1"], concurrency=7):
            assert [await job.result(timeout=20) for job in jobs] == list(range(1_000))
