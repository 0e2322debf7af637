"""Jobs that hold the loop or the interpreter, and jobs that take their worker down. F03 to F07.

Elsewhere: F03 and F04 by hand tests/worker/test_heartbeat.py, F04 tests/worker/test_watchdog.py (each kind of stall).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from streamq import StreamQ, current
from tests.faults.arena import PATIENCE, QUEUE, RECOVERY, Arena
from tests.faults.crew import Crew
from tests.faults.ledger import START, attempt, ledger_of
from tests.faults.tasks import LEASE, application
from tests.worker.waits import until

HEADROOM = 64 << 20  # bytes


def hogs(url: str, namespace: str, folder: Path, **settings: Any) -> StreamQ[Any]:
    """The usual tasks, and some that behave worse."""
    app = application(url, namespace, folder, **settings)
    ledger = ledger_of(folder)

    @app.task(name="spin")
    async def spin(key: str, seconds: float) -> str:
        """Python code that never awaits."""
        with attempt(ledger, key):
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                pass
            return key

    @app.task(name="stand")
    async def stand(key: str, seconds: float) -> str:
        """The loop stands still; then it takes a while longer."""
        with attempt(ledger, key):
            time.sleep(seconds)
            await asyncio.sleep(1.5 * LEASE)
            return key

    @app.task(name="grip_once")
    async def grip_once(key: str, seconds: int) -> str:
        """The first attempt lets no other thread run, as one that has a model to load."""
        ctx = current()
        assert ctx is not None
        with attempt(ledger, key):
            if ctx.attempt == 1:
                ctypes.PyDLL(None).sleep(seconds)
            return key

    @app.task(name="toxic")
    async def toxic(key: str, how: str) -> None:
        with attempt(ledger, key):
            await asyncio.sleep(0.2)  # until its neighbours run
            if how == "exit":
                os._exit(9)
            if how in ("SIGKILL", "SIGSEGV"):  # the first is what the kernel does when memory is short
                os.kill(os.getpid(), getattr(signal, how))
            used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, resource.RLIM_INFINITY))
            try:
                hoard = [bytearray(1 << 20) for _ in range(2 * HEADROOM >> 20)]
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert not hoard

    return app


async def test_f03_a_worker_whose_loop_stood_still_is_handed_its_own_entry_again(arena: Arena) -> None:
    app = hogs(arena.url, arena.namespace, arena.folder)
    async with app, app.worker() as worker:
        assert worker.crew is not None
        worker.crew.heartbeat.suspended = True  # nor does the thread renew anything
        job = await arena.enqueue(app, "stand", "s", 2 * LEASE)
        held = worker.crew.lanes[QUEUE].held
        await until(lambda: any(holding.adopted for holding in held.values()), 10)
        worker.crew.heartbeat.suspended = False
        assert await job.result(timeout=10) == "s"
    verdict = await arena.verdict()
    verdict.assert_base(done=1)
    assert verdict.starts == {job.id: 1}
    assert verdict.overlaps == {}


async def test_f04_a_loop_without_an_await_keeps_its_lease_and_is_named(arena: Arena) -> None:
    app = hogs(arena.url, arena.namespace, arena.folder)
    async with app, arena.crew(build=hogs, settings={"stall": 0.5}) as crew:
        for _ in range(2):
            await crew.start()
        job = await arena.enqueue(app, "spin", "s", 5 * LEASE)
        (began,) = await arena.seen(START)
        (hand,) = (each for each in crew.hands if each.pid == began.pid)
        await until(lambda: f"spin[{job.id}]" in crew.words(hand))
        arena.measured("a loop that stands still: until it is named", (time.time_ns() - began.at) / 1e9)
        await arena.settled()
        assert Path(__file__).name in crew.words(hand)  # and the line
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base(done=1)
    assert verdict.starts == {job.id: 1}


@pytest.mark.parametrize(("task", "most"), [("grip", 3), ("grip_once", 2), ("crunch", 1)])
async def test_f05_a_job_that_holds_the_interpreter_ends_once(arena: Arena, task: str, most: int) -> None:
    # No thread can renew its lease. One that does so each time loses it each time: a dead letter, as after other
    # crashes, unless nobody was free to take it. In a child process it is a job like all others.
    app = hogs(arena.url, arena.namespace, arena.folder)
    async with app, arena.crew(build=hogs, settings={"max_crashes": 2}) as crew:
        for _ in range(2):
            await crew.start()
        job = await arena.enqueue(app, task, "c", 2)
        await arena.settled()
        letters = await app.broker.dead(QUEUE)
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base()
    assert 1 <= verdict.starts[job.id] <= most
    assert verdict.done + sum(letter.reason.value == "crashed" for letter in letters) == 1
    assert verdict.done or task == "grip"
    arena.measured(f"{task}: starts", verdict.starts[job.id], "")


async def test_f06_an_endless_loop_becomes_a_dead_letter(arena: Arena) -> None:
    app, stall = arena.app(), 1.5
    async with app, arena.crew(stall_leases=stall, settings={"max_crashes": 1}) as crew:
        stuck, heir = await crew.start(), await crew.start()
        job = await arena.enqueue(app, "endless", "e")
        first, second = await arena.seen(START, 2)
        took = arena.measured("from its start to its next one, elsewhere", (second.at - first.at) / 1e9)
        assert took <= stall + RECOVERY + PATIENCE
        assert {first.pid, second.pid} == {stuck.pid, heir.pid}
        (stuck if stuck.pid == first.pid else heir).kill()
        await crew.start()
        await arena.settled()
        (letter,) = await app.broker.dead(QUEUE)
        assert (letter.job_id, letter.reason.value) == (job.id, "crashed")
        for hand in crew.hands:
            hand.kill()
    verdict = await arena.verdict()
    verdict.assert_base(done=0)
    assert verdict.starts == {job.id: 2}


async def poisoned(arena: Arena, crew: Crew, innocents: int = 60, how: str = "exit") -> StreamQ[Any]:
    """One job that kills its worker among many that do not; whoever dies is replaced."""
    app = hogs(arena.url, arena.namespace, arena.folder)
    async with app:
        await arena.enqueue(app, "toxic", "poison", how)
        await arena.enqueue_many(app, "work", [f"i{n}" for n in range(innocents)], 0.3)
        alive = [await crew.start(), await crew.start()]
        unfinished = app.broker.keys(QUEUE).jobs
        async with asyncio.timeout(60):
            while arena.client.exists(unfinished):
                for n, each in enumerate(alive):
                    if not each.process.is_alive():
                        each.kill()  # it is dead; now the ledger says so
                        alive[n] = crew.begin()
                await asyncio.sleep(0.02)
        await crew.stop()
    return app


@pytest.mark.parametrize(
    ("how", "innocents"),
    [
        ("exit", 60),
        pytest.param("exit", 500, marks=pytest.mark.slow),
        pytest.param("SIGSEGV", 60, marks=pytest.mark.slow),
        pytest.param("SIGKILL", 60, marks=pytest.mark.slow),
    ],
)
async def test_f07_a_poison_job_dies_alone(arena: Arena, how: str, innocents: int) -> None:
    max_crashes = 3
    async with arena.crew(build=hogs, settings={"max_crashes": max_crashes}) as crew:
        app = await poisoned(arena, crew, innocents, how)
    async with app:
        (letter,) = await app.broker.dead(QUEUE)
    assert letter.reason.value == "crashed"
    assert len(arena.entries(START, key="poison")) == max_crashes + 1
    verdict = await arena.verdict()
    verdict.assert_base(done=innocents)
    arena.measured(
        "slowest neighbour, from the crash to its next start; suspects go one by one", max(verdict.recovery.values())
    )


async def test_f07_a_job_that_takes_all_memory_fails_alone(arena: Arena) -> None:
    async with arena.crew(build=hogs) as crew:
        app = await poisoned(arena, crew, 60, "RLIMIT_AS")
    async with app:
        (letter,) = await app.broker.dead(QUEUE)
    assert (letter.reason.value, letter.error.partition(":")[0]) == ("failed", "MemoryError")
    verdict = await arena.verdict()
    verdict.assert_base(done=60)
    assert set(verdict.starts.values()) == {1}
