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


async def test_two_turns_overlap_and_never_three(app: MakeApp) -> None:
    here, under_way, most = app(), 0, 0
    sizes: list[int] = []

    @here.task
    async def echo(number: int) -> int:
        return number

    async with here:
        turn = here.broker.turn

        async def watched(*args: object, **more: object) -> object:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            sizes.append(len(args[2]))  # type: ignore[arg-type]
            try:
                await asyncio.sleep(0.001)
                return await turn(*args, **more)  # type: ignore[arg-type]
            finally:
                under_way -= 1

        here.broker.turn = watched  # type: ignore[method-assign, assignment]
        jobs = await here.enqueue_many(echo.s(n) for n in range(400))
        async with here.worker(concurrency=20):
            assert [await job.result(timeout=20) for job in jobs] == list(range(400))
        assert most == 2
        assert max(sizes) == 10  # half of what runs: the other half travels with the other turn


async def test_what_ends_in_small_numbers_waits_for_the_turn_under_way(app: MakeApp) -> None:
    """Else each of many slow jobs would cost a turn of its own."""
    here, gate = app(), asyncio.Event()
    turns: list[int] = []

    @here.task
    async def wait(number: int) -> int:
        await gate.wait()
        await asyncio.sleep(number * 0.0005)
        return number

    async with here:
        turn = here.broker.turn

        async def slow(*args: object, **more: object) -> object:
            if args[2]:
                turns.append(len(args[2]))  # type: ignore[arg-type]
                await asyncio.sleep(0.02)
            return await turn(*args, **more)  # type: ignore[arg-type]

        here.broker.turn = slow  # type: ignore[method-assign, assignment]
        jobs = await here.enqueue_many(wait.s(n) for n in range(8))
        async with here.worker(concurrency=40):
            await asyncio.sleep(0.1)
            gate.set()
            assert [await job.result(timeout=20) for job in jobs] == list(range(8))
        assert len(turns) <= 2, turns
