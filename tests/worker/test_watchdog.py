"""Who holds the event loop is said while they do; and what the running jobs are doing."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from streamq import Event
from streamq.worker.watchdog import describe_running
from streamq.worker.worker import Worker
from tests.conftest import MakeApp
from tests.worker import crunch
from tests.worker.processes import lines
from tests.worker.waits import one_server, until

pytestmark = one_server
STALL = 0.3
HELD = re.compile(r"stood still for ([\d.]+) s, held by (.*)$", re.MULTILINE)


class Log:
    """What the log says while the loop stands still."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def said(self) -> list[tuple[str, str]]:
        return HELD.findall("\n".join(self._caplog.messages))

    def until(self, times: int = 1, within: float = 10.0) -> None:
        """Block, without giving the loop a chance."""
        began = time.monotonic()
        while len(self.said()) < times and time.monotonic() - began < within:
            time.sleep(0.02)  # this line

    def busily(self, within: float = 10.0) -> None:
        began = time.monotonic()
        while time.monotonic() - began < within:
            if self.said():  # that line
                break


@pytest.fixture
def words(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.WARNING, "streamq.worker")
    return Log(caplog)


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(text))


async def test_a_task_that_sleeps_is_named_while_it_sleeps(
    app: MakeApp, words: Log, caplog: pytest.LogCaptureFixture
) -> None:
    here, events, took = app(stall=STALL), list[Event](), list[float]()
    here.on("loop.stalled")(events.append)

    @here.task(name="sleepy")
    async def sleepy() -> None:
        began = time.monotonic()
        words.until()
        took.append(time.monotonic() - began)

    async with here, here.worker(name="w1"):
        job = await sleepy.enqueue()
        await job.result(timeout=20)
        assert took[0] < STALL + 1
        ((_, found),) = words.said()
        where = f"{__file__}:{line_of('# this line')} in Log.until: time.sleep(0.02)  # this line"
        assert found == f"sleepy[{job.id}], at {where}"
        record = next(each for each in caplog.records if "stood still" in each.message)
        assert (record.levelname, record.__dict__["job_id"], record.__dict__["task"]) == ("ERROR", job.id, "sleepy")
        await until(lambda: len(events) == 1)
    assert "the event loop runs again after" in caplog.text
    (event,) = events
    assert (event.job_id, event.task, event.queue, event.worker) == (job.id, "sleepy", "default", "w1")
    assert event.duration >= STALL
    assert event.reason == where
    assert event.at


async def test_a_loop_that_computes_is_named(app: MakeApp, words: Log) -> None:
    here = app(stall=STALL)

    @here.task(name="busy")
    async def busy() -> None:
        words.busily()

    async with here, here.worker():
        job = await busy.enqueue()
        await job.result(timeout=20)
    assert f"busy[{job.id}], at {__file__}:" in words.said()[0][1]
    assert "in Log.busily" in words.said()[0][1] or "in Log.said" in words.said()[0][1]


async def test_c_code_that_lets_no_thread_run_is_named_when_it_has_ended(app: MakeApp, words: Log) -> None:
    here = app(stall=STALL)

    @here.task(name="greedy")
    async def greedy() -> None:
        began, count = time.thread_time(), 10**6
        while time.thread_time() - began < 2 * STALL:  # one call that is long enough, however fast this machine is
            began, count = time.thread_time(), 2 * count
            sum(range(count))  # greedy line

    async with here, here.worker():
        job = await greedy.enqueue()
        await job.result(timeout=60)
    line = f"greedy[{job.id}], at {__file__}:{line_of('# greedy line')} in "
    assert any(held.startswith(line) for _, held in words.said())


async def test_the_users_line_and_the_innermost_one(app: MakeApp, words: Log) -> None:
    here = app(stall=STALL)

    @here.task(name="outside")
    async def outside() -> None:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1.2)"], check=True)  # user's line

    async with here, here.worker():
        job = await outside.enqueue()
        await job.result(timeout=20)
    held = words.said()[0][1]
    assert held.startswith(f"outside[{job.id}], at {__file__}:")
    assert re.search(r"# user's line; innermost .*subprocess\.py:\d+ in Popen", held)


async def test_a_task_that_the_job_started_is_the_job_s(app: MakeApp, words: Log) -> None:
    here = app(stall=STALL)

    async def blocks() -> None:
        words.until()

    @here.task(name="parent")
    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(blocks())

    async with here, here.worker():
        job = await parent.enqueue()
        await job.result(timeout=20)
    assert words.said()[0][1].startswith(f"parent[{job.id}], at {__file__}:")


async def test_a_host_that_blocks_is_named_without_a_job(app: MakeApp, words: Log) -> None:
    here = app(stall=STALL)
    async with here, here.worker():
        await asyncio.sleep(0.1)
        began = time.monotonic()
        words.until()
        assert time.monotonic() - began < STALL + 1
    assert words.said()[0][1].startswith(f"no job of this worker, at {__file__}:{line_of('# this line')} in Log.until")


async def test_it_goes_on_saying_so_ever_more_rarely(
    app: MakeApp, words: Log, caplog: pytest.LogCaptureFixture
) -> None:
    here, events = app(stall=STALL), list[Event]()
    here.on("loop.stalled")(events.append)
    async with here, here.worker():
        words.until(times=3)
        await until(lambda: len(events) == 1)
    first, second, third = (float(seconds) for seconds, _ in words.said())
    assert 0.9 < second - first < third - second
    assert len([each for each in caplog.messages if "runs again" in each]) == 1
    assert events[0].duration >= third


async def test_nothing_is_watched_if_nobody_wants_it(app: MakeApp, words: Log) -> None:
    here = app(stall=0)
    async with here, here.worker():
        assert "streamq-watchdog" not in {thread.name for thread in threading.enumerate()}
        time.sleep(3 * STALL)
    assert words.said() == []
    here = app(stall=STALL)
    async with here, here.worker():
        assert "streamq-watchdog" in {thread.name for thread in threading.enumerate()}
    await until(lambda: "streamq-watchdog" not in {thread.name for thread in threading.enumerate()})


SUSPENDED = """
import asyncio, os, signal, sys, time
from streamq import StreamQ
from streamq.worker import log
from streamq.worker.watchdog import Watchdog

log.configure("warning")
app = StreamQ(sys.argv[1], namespace=sys.argv[2], stall=1.0)

@app.task(name="suspends")
async def suspends() -> None:
    (dog,) = (each for each in worker.crew.outlive_jobs if isinstance(each, Watchdog))
    while dog._answered:  # until the loop is asked for a sign of life, which it cannot give
        pass
    os.kill(os.getpid(), signal.SIGSTOP)
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass

worker = app.worker(burst=True)

async def main() -> None:
    async with app:
        await worker.run()

asyncio.run(main())
"""


async def test_a_suspended_process_is_no_stall(url: str, namespace: str, app: MakeApp) -> None:
    here = app()
    async with here:
        job = await here.enqueue("suspends")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SUSPENDED, url, namespace, stderr=asyncio.subprocess.PIPE
        )
        stat = Path(f"/proc/{process.pid}/stat")
        await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        await asyncio.sleep(2)
        process.send_signal(signal.SIGCONT)
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert await job.result(timeout=1) is None
    assert "stood still" not in said.decode()


def crew_described(worker: Worker) -> str:
    assert worker.crew is not None
    return describe_running(worker.crew)


async def test_what_runs_is_described_with_its_stacks(app: MakeApp, tmp_path: Path) -> None:
    here, ledger, go = app(pool_size=1), str(tmp_path / "ledger"), threading.Event()
    waits = asyncio.Event()

    async def deep() -> None:
        await waits.wait()  # waits here

    @here.task(name="coroutine")
    async def coroutine() -> None:
        await deep()  # by way of this

    @here.task(name="limited", soft_time_limit=60)
    async def limited() -> None:
        await deep()

    @here.task(name="thread")
    def thread(number: int) -> None:
        go.wait()  # blocks here

    here.task(name="process", executor="process")(crunch.wait_for)

    async with here, here.worker() as worker:
        assert crew_described(worker) == "no job is running"
        jobs = [await here.enqueue(name, *args) for name, *args in (
            ("coroutine",), ("limited",), ("thread", 1), ("thread", 2), ("process", str(tmp_path / "go"), ledger),
        )]  # fmt: skip
        await until(lambda: len(lines(Path(ledger))) == 1 and crew_described(worker).count("blocks here") == 2)
        parts = dict(re.findall(r"^\w+\[(\w+)\] (since .*?)(?=^\w+\[|\Z)", crew_described(worker), re.M | re.S))
        (tmp_path / "go").touch()
        waits.set()
        go.set()
        for job in jobs:
            await job.result(timeout=20)
    by_way, by_limit, one, other, child = (parts[job.id] for job in jobs)
    assert by_way.index("# by way of this") < by_way.index("# waits here")
    assert "# waits here" in by_limit
    assert "# blocks here" in one
    assert "# blocks here" in other
    assert f"in the child process {lines(Path(ledger))[0]}" in child
    assert re.match(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00, attempt 1", by_way)
