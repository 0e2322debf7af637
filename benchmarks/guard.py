"""Counts instead of times: a change that makes a job dearer is seen on any machine, however busy.

Each case is run with two numbers of jobs; the difference leaves out what starting and ending costs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import uvloop
from redis import Redis

from benchmarks.budget import ANY, BUDGETS, Costs, Verdict, accept, judge, number, read, write
from benchmarks.processes import Failure
from streamq import StreamQ, Task
from streamq.broker.embedded import EmbeddedServer, find_server
from streamq.broker.line import Line
from streamq.errors import ConfigurationError

ABREAST = 100  # coroutines that enqueue
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

App = StreamQ[Any]
Add = Task[[int, int], int]
PutIn = Callable[[App, Add, int], Awaitable[None]]
Stage = Callable[[App, Add, int, AbstractContextManager[None]], Awaitable[None]]
Found = Counter[str]
Meter = Callable[[Found], AbstractContextManager[None]]


# ---- what is run: only what stands in the `with` block counts --------------------------------------------------------


async def _one_by_one(app: App, add: Add, jobs: int) -> None:
    for i in range(jobs):
        await add.enqueue(i, 1)


async def _abreast(app: App, add: Add, jobs: int) -> None:
    numbers = iter(range(jobs))

    async def produce() -> None:
        for i in numbers:
            await add.enqueue(i, 1)

    await asyncio.gather(*(produce() for _ in range(ABREAST)))


async def _in_bulk(app: App, add: Add, jobs: int) -> None:
    await app.enqueue_many(add.s(i, 1) for i in range(jobs))


def _enqueue(put_in: PutIn) -> Stage:
    async def stage(app: App, add: Add, jobs: int, counted: AbstractContextManager[None]) -> None:
        await add.enqueue(0, 0)  # connects
        with counted:
            await put_in(app, add, jobs)

    return stage


def _drain(concurrency: int) -> Stage:
    async def stage(app: App, add: Add, jobs: int, counted: AbstractContextManager[None]) -> None:
        await _in_bulk(app, add, jobs)
        with counted:
            await app.worker(concurrency=concurrency, burst=True).run()
        info = await app.queue().info()
        if left := info.queued + info.running + info.scheduled + info.dead:
            raise Failure(f"the worker left {left} of {jobs} jobs")

    return stage


async def _round_trip(app: App, add: Add, jobs: int, counted: AbstractContextManager[None]) -> None:
    async with app.worker():
        await (await add.enqueue(0, 0)).result(timeout=30)
        with counted:
            for i in range(jobs):
                await (await add.enqueue(i, 1)).result(timeout=30)


class Case(NamedTuple):
    """`chance` is what upkeep and scheduling may add to the commands and tasks of a run."""

    name: str
    stage: Stage
    jobs: int
    chance: int = 1

    @property
    def sizes(self) -> tuple[int, int]:
        """Two numbers of jobs, `jobs` apart."""
        return self.jobs // 5, self.jobs // 5 + self.jobs

    @property
    def slack(self) -> float:
        """The same a job."""
        return self.chance / self.jobs


CASES = (
    Case("enqueue_one_by_one", _enqueue(_one_by_one), 200),
    Case("enqueue_100_coroutines", _enqueue(_abreast), 5_000),
    Case("enqueue_many", _enqueue(_in_bulk), 5_000),
    Case("drain_100", _drain(100), 5_000, 4),
    Case("drain_32", _drain(32), 5_000, 4),
    Case("round_trip", _round_trip, 100, 4),
)


# ---- how it is counted -----------------------------------------------------------------------------------------------


@contextmanager
def _traffic(client: Redis, found: Found) -> Iterator[None]:
    """Calls of `Line.call`, commands that the server counts (those inside scripts too), tasks of asyncio."""
    loop, send = asyncio.get_running_loop(), Line.call

    def call(line: Line, *args: bytes | str | int, **options: Any) -> Coroutine[Any, Any, Any]:
        found["round_trips"] += 1
        return send(line, *args, **options)

    def task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        found["tasks"] += 1
        return asyncio.Task(coro, loop=loop, **options)

    before = _commands(client)
    loop.set_task_factory(task)
    try:
        with patch.object(Line, "call", call):
            yield
    finally:
        loop.set_task_factory(None)
    found["server_commands"] += _commands(client) - before


def _commands(client: Redis) -> int:
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return sum(each["calls"] for each in stats.values())


@contextmanager
def _allocations(found: Found) -> Iterator[None]:
    """Blocks asked of Python's allocators and of malloc, in all threads."""
    from memray import AllocatorType, FileReader, Tracker

    freeing = {AllocatorType.PYMALLOC_FREE, AllocatorType.FREE, AllocatorType.MUNMAP}
    with TemporaryDirectory() as folder:
        file = Path(folder, "memray.bin")
        gc.collect()
        with Tracker(file, trace_python_allocators=True):
            yield
        with FileReader(file) as reader:  # its metadata.total_allocations counts what was freed, too
            found["allocations"] += sum(each.allocator not in freeing for each in reader.get_allocation_records())


@contextmanager
def _calls(found: Found) -> Iterator[None]:
    """Calls of functions of Python and C in this thread, and each time that a coroutine goes on."""
    before = sys.getprofile()

    def note(_: object, event: str, __: object) -> None:
        if event in ("call", "c_call"):
            found["calls"] += 1

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


async def _run(case: Case, url: str, jobs: int, counted: AbstractContextManager[None]) -> None:
    app = StreamQ(url, namespace=f"guard-{uuid.uuid4().hex[:12]}")

    @app.task
    async def add(i: int, y: int) -> int:
        return i + y

    async with app:
        await case.stage(app, add, jobs, counted)


def measure(case: Case, url: str) -> dict[str, float]:
    """What a job of this case costs, by figure. Raises `Failure` if jobs are left."""
    with Redis.from_url(url) as client:
        meters: tuple[Meter, ...] = (partial(_traffic, client), _allocations, _calls)
        uvloop.run(_run(case, url, case.sizes[0], nullcontext()))  # what is imported, cached or told to the server once
        found = []
        for jobs in case.sizes:
            found.append(Counter[str]())
            for meter in meters:
                uvloop.run(_run(case, url, jobs, meter(found[-1])))
    small, large = found
    figures = ("round_trips", "server_commands", "tasks", "allocations", "calls")
    return {figure: (large[figure] - small[figure]) / case.jobs for figure in figures}


# ---- what is said ----------------------------------------------------------------------------------------------------


def _server() -> EmbeddedServer:
    """Any server counts the same. Raises `ConfigurationError` if there is none."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    return EmbeddedServer.start(binary=Path(installed) if installed else find_server())


def _table(verdicts: Sequence[Verdict]) -> str:
    lines = [f"{'case':24} {'figure':16} {'a job':>10} {'budget':>10}  verdict"]
    for each in verdicts:
        budget = "-" if each.budget is None else number(each.budget)
        lines.append(f"{each.case:24} {each.figure:16} {number(each.cost):>10} {budget:>10}  {each.word}")
    return "\n".join(lines)


def run(*, accepted: bool = False, path: Path = BUDGETS, cases: Sequence[Case] = CASES) -> int:
    """Count, print, and write the budgets if `accepted`. The exit code: 1 for an overrun, 2 without a server."""
    with patch.dict(os.environ):
        for variable in [each for each in os.environ if each.startswith("STREAMQ_")]:
            del os.environ[variable]  # it would change what is counted
        try:
            server = _server()
        except ConfigurationError as error:
            click.echo(str(error), err=True)
            return 2
        with server:
            costs: Costs = {case.name: measure(case, server.url) for case in cases}
    slack, budgets = {case.name: case.slack for case in cases}, read(path)
    if accepted:
        budgets = accept(costs, slack, budgets, PYTHON)
        write(path, budgets)
    verdicts = list(judge(costs, slack, budgets, PYTHON))
    click.echo(_table(verdicts))
    if PYTHON not in budgets and budgets.keys() - {ANY}:
        click.echo(f"no budgets of Python {PYTHON}: allocations and calls are held against the largest of the others")
    for each in verdicts:
        if each.advice:
            click.echo(each.advice, err=each.failed)
    return 1 if any(each.failed for each in verdicts) else 0
