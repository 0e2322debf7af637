"""Worker processes that die, are stopped, or meet a job that kills them."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

from streamq import JobFailed
from tests.conftest import MakeApp
from tests.worker.processes import lines, victim
from tests.worker.waits import one_server, until

LEASE = 1.0
RECOVERY = 1.25 * LEASE + 1


@one_server
async def test_a_job_of_a_killed_worker_runs_again_within_the_promised_time(
    url: str, namespace: str, app: MakeApp, tmp_path: Path
) -> None:
    here, ledger = app(lease=LEASE), tmp_path / "ledger"
    restarted = asyncio.Event()

    @here.task(name="hang")
    async def hang() -> str:
        restarted.set()
        return "recovered"

    async with here, victim(url, namespace, ledger) as process:
        job = await hang.enqueue()

        async def started() -> bool:
            return len(lines(ledger)) == 1

        await until(started)
        async with here.worker():
            process.kill()
            killed = time.monotonic()
            await asyncio.wait_for(restarted.wait(), 10)
            assert time.monotonic() - killed <= RECOVERY
            assert await job.result(timeout=5) == "recovered"


@one_server
async def test_sigterm_gives_the_job_back_at_once_and_its_crash_count_stays(
    url: str, namespace: str, app: MakeApp, tmp_path: Path
) -> None:
    # The lease of these workers is 1 s and grace 0.2 s: only a release brings the job back within half a second.
    here, ledger = app(lease=LEASE), tmp_path / "ledger"
    seen: list[int] = []

    @here.task(name="hang")
    async def hang() -> str:
        (held,) = (h for h in worker.crew.lanes["default"].held.values()) if worker.crew else ()
        seen.append(held.delivery.crashes)
        return "taken over"

    async with here, victim(url, namespace, ledger) as process:
        job = await hang.enqueue()

        async def started() -> bool:
            return len(lines(ledger)) == 1

        await until(started)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        ended = time.monotonic()
        worker = here.worker()
        async with worker:
            assert await job.result(timeout=5) == "taken over"
        assert time.monotonic() - ended < 0.5 * LEASE
        assert seen == [0]


@one_server
async def test_a_poison_job_dies_alone_after_its_budget(url: str, namespace: str, app: MakeApp, tmp_path: Path) -> None:
    here, ledger = app(lease=LEASE), tmp_path / "ledger"
    die = here.task(name="die")(nothing)
    innocent = here.task(name="innocent")(same)
    async with here:
        poison = await die.enqueue()
        jobs = await here.enqueue_many(innocent.s(n) for n in range(30))
        respawning = asyncio.create_task(respawn(url, namespace, ledger))
        try:
            error: JobFailed | None = None
            try:
                await poison.result(timeout=30)
            except JobFailed as failed:
                error = failed
            assert error is not None
            assert "deliveries ended without a report" in str(error)
            assert [await job.result(timeout=20) for job in jobs] == list(range(30))
        finally:
            respawning.cancel()
            await asyncio.gather(respawning, return_exceptions=True)
        assert len([line for line in lines(ledger) if line.startswith("DIE")]) == here.options.max_crashes + 1
        (letter,) = await here.broker.dead("default")
        assert letter.reason.value == "crashed"


async def respawn(url: str, namespace: str, ledger: Path) -> None:
    while True:
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(victim(url, namespace, ledger))
            await process.wait()


async def nothing() -> None: ...


async def same(number: int) -> int:
    return number
