"""Tasks in child processes: what they return, how they are ended, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from streamq import (
    ChildCrashed,
    Context,
    JobCancelled,
    JobFailed,
    MaxRetriesExceeded,
    Middleware,
    StreamQ,
    TimeLimitExceeded,
)
from streamq.broker.wire import NO_KWARGS, decode_value, encode_value
from streamq.worker import log
from streamq.worker.crew import Crew
from streamq.worker.held import Cause
from streamq.worker.pool import Pool
from streamq.worker.pool_child import Order
from streamq.worker.worker import Worker
from tests.conftest import MakeApp
from tests.worker import crunch
from tests.worker.processes import lines
from tests.worker.waits import one_server, until

pytestmark = [one_server, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


def gone(pid: int) -> bool:
    """Whether the process is no more, or waits for a parent that does not ask for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children() -> set[int]:
    """The child processes of this one that run streamq's pool."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found if b"pool_child" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def noted(ledger: Path) -> list[int]:
    return [int(pid) for line in lines(ledger) for pid in line.split()]


def crew_of(worker: Worker) -> Crew:
    assert worker.crew is not None
    return worker.crew


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


async def test_arguments_and_results_have_their_types(app: MakeApp) -> None:
    here = app(pool_size=1)
    area = here.task(executor="process")(crunch.area)
    ids = here.task(executor="process", time_limit=60)(crunch.both_ids)
    async with here, here.worker():
        assert await (await area.enqueue(crunch.Box(2, 3), times=2)).result(timeout=20) == crunch.Box(4, 6)
        job = await ids.enqueue()
        assert tuple(await job.result(timeout=20)) == (job.id, True)
        failed = await here.enqueue(area.name, "no box")
        with pytest.raises(JobFailed, match=r"InvalidArguments: .*'box' is annotated Box"):
            await failed.result(timeout=20)
    assert children() == set()


async def test_many_jobs_share_few_processes(app: MakeApp) -> None:
    here = app(pool_size=2)
    pid = here.task(executor="process")(crunch.pid)
    async with here, here.worker(concurrency=10):
        jobs = await here.enqueue_many(pid.s() for _ in range(200))
        pids = {await job.result(timeout=20) for job in jobs}
        assert len(pids) <= 2
        assert pids == children()
        assert os.getpid() not in pids
    assert children() == set()


async def test_a_failure_is_told_as_it_happened(app: MakeApp) -> None:
    here = app(pool_size=1)
    odd = here.task(executor="process", autoretry_for=(crunch.Odd,), max_retries=1, retry_backoff=False)(
        crunch.fail_odd
    )
    own = here.task(executor="process", autoretry_for=(OSError,), max_retries=1, retry_backoff=False)(
        crunch.fail_locally
    )
    plain = here.task(name="plain", executor="process")(crunch.fail_odd)
    async with here, here.worker():
        with pytest.raises(MaxRetriesExceeded) as caught:
            await (await odd.enqueue(3)).result(timeout=20)
        assert caught.value.error == "tests.worker.crunch.Odd"
        assert "3 is odd" in str(caught.value)
        assert 'raise Odd(number, where=Path("/tmp"))' in caught.value.traceback
        assert "pool" not in caught.value.traceback
        with pytest.raises(MaxRetriesExceeded) as caught:  # its class is known to the child alone, OSError is not
            await (await own.enqueue()).result(timeout=20)
        assert caught.value.error == "tests.worker.crunch.fail_locally.<locals>.Own"
        with pytest.raises(JobFailed) as failed:
            await (await plain.enqueue(5)).result(timeout=20)
        assert not isinstance(failed.value, MaxRetriesExceeded)


async def test_the_signals_of_a_task_arrive(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    again = here.task(executor="process")(crunch.ask_again)
    async with here, here.worker():
        job = await again.enqueue(str(ledger))
        assert await job.result(timeout=20) in noted(ledger)
        assert len(noted(ledger)) == 2
        info = await job.info()
        assert [failure.message for failure in info.failures] == ["not yet"]


async def test_what_ends_a_program_ends_only_the_job(app: MakeApp) -> None:
    here = app(pool_size=1)
    fail = here.task(executor="process")(crunch.fail_as)
    pid = here.task(executor="process")(crunch.pid)
    async with here, here.worker():
        first = await (await pid.enqueue()).result(timeout=20)
        for how, says in {"exit": "SystemExit", "cancel": "CancelledError", "generator": "GeneratorExit"}.items():
            with pytest.raises(JobFailed, match=says):
                await (await fail.enqueue(how)).result(timeout=20)
        assert await (await pid.enqueue()).result(timeout=20) == first


async def test_the_hard_limit_kills_and_may_be_retried(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    hang = here.task(
        executor="process", time_limit=0.3, autoretry_for=(TimeLimitExceeded,), max_retries=1, retry_backoff=False
    )(crunch.hang)
    async with here, here.worker():
        job = await hang.enqueue(str(ledger))
        with pytest.raises(
            MaxRetriesExceeded, match=r"TimeLimitExceeded: the time limit of 0\.3 s was reached"
        ) as caught:
            await job.result(timeout=20)
        assert len(set(noted(ledger))) == 2
        assert all(gone(pid) for pid in noted(ledger))
        assert 'File "' not in caught.value.traceback  # where the worker waited for it says nothing


async def test_what_the_function_started_is_killed_too(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    hang = here.task(executor="process", time_limit=0.5)(crunch.hang_with_a_child)
    async with here, here.worker():
        job = await hang.enqueue(str(ledger))
        with pytest.raises(JobFailed, match="TimeLimitExceeded"):
            await job.result(timeout=20)
        await until(lambda: all(gone(pid) for pid in noted(ledger)))
        assert len(noted(ledger)) == 2


async def test_waiting_for_a_process_is_not_limited(app: MakeApp, ledger: Path, tmp_path: Path) -> None:
    here, go = app(pool_size=1), tmp_path / "go"
    wait = here.task(executor="process")(crunch.wait_for)
    square = here.task(executor="process", time_limit=0.5)(crunch.square)
    early = here.task(name="early", executor="process", time_limit=0.5, acks_early=True)(crunch.square)
    async with here, here.worker() as worker:
        first = await wait.enqueue(str(go), str(ledger))
        await until(lambda: len(noted(ledger)) == 1)
        waiting = [await square.enqueue(3), await early.enqueue(4)]
        await until(lambda: crew_of(worker).slots.running == 3)
        await asyncio.sleep(0.7)  # more than the limit
        go.touch()
        assert [await job.result(timeout=20) for job in waiting] == [9, 16]
        await first.result(timeout=20)


async def test_the_soft_limit_speaks_inside_the_function(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    tidy = here.task(executor="process", soft_time_limit=0.1, time_limit=30)(crunch.sleep_and_tidy)
    wait = here.task(executor="process", soft_time_limit=0.1)(crunch.wait_for)
    square = here.task(executor="process", soft_time_limit=0.1)(crunch.square)
    async with here, here.worker():
        assert await (await tidy.enqueue(str(ledger))).result(timeout=20) == "the soft time limit of 0.1 s was reached"
        with pytest.raises(JobFailed, match="SoftTimeLimitExceeded"):
            await (await wait.enqueue("/nowhere", str(ledger))).result(timeout=20)
        assert await (await square.enqueue(3)).result(timeout=20) == 9
        await asyncio.sleep(0.2)  # a limit that is over rings nobody
        assert await (await square.enqueue(4)).result(timeout=20) == 16
    assert len(set(noted(ledger))) == 1


async def test_a_cancelled_job_is_killed(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    hang = here.task(executor="process")(crunch.hang)
    async with here, here.worker():
        job = await hang.enqueue(str(ledger))
        await until(lambda: len(noted(ledger)) == 1)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=20)
        assert gone(*noted(ledger))


async def test_a_lost_lease_kills(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1, lease="0.5s")
    again = here.task(executor="process")(crunch.hang_once)
    async with here, here.worker(name="zombie") as worker:
        job = await again.enqueue(str(ledger))
        await until(lambda: len(noted(ledger)) == 1)
        (holding,) = crew_of(worker).lanes["default"].held.values()
        holding.cancel(Cause.LOST, "another worker has it")
        await until(lambda: gone(noted(ledger)[0]))
        assert await job.result(timeout=20) == "again"


async def test_a_shutdown_gives_back_and_leaves_nothing_behind(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=2)
    again = here.task(executor="process")(crunch.hang_once)
    square = here.task(executor="process")(crunch.square)
    async with here:
        async with here.worker(grace=0.05):
            job = await again.enqueue(str(ledger))
            await until(lambda: len(noted(ledger)) == 1)
            assert await (await square.enqueue(2)).result(timeout=20) == 4  # its child is idle at the end
            assert len(children()) == 2
        assert children() == set()
        found = await here.broker.find("default", job.id)
        assert (found.where, found.consumer) == ("stream", "nobody")
        async with here.worker():
            assert await job.result(timeout=20) == "again"
    assert children() == set()


async def test_a_worker_that_crashes_leaves_nothing_behind(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=2)
    again = here.task(executor="process")(crunch.hang_once)
    square = here.task(executor="process")(crunch.square)
    async with here:
        worker = here.worker()
        running = asyncio.create_task(worker.run())
        job = await again.enqueue(str(ledger))
        await until(lambda: len(noted(ledger)) == 1)
        assert await (await square.enqueue(2)).result(timeout=20) == 4
        assert len(children()) == 2
        janitor = next(iter(crew_of(worker).janitors.values()))
        janitor.turn = fail  # type: ignore[method-assign]
        janitor.wake()
        with pytest.raises(RuntimeError, match="a service failed"):
            await running
        assert children() == set()
        await job.cancel()


async def fail() -> float:
    raise RuntimeError("a service failed")


CRASHES = {
    "exit": r"ended with exit code 3 before the task did",
    "segfault": r"ended with signal 11 \(SIGSEGV\) before the task did",
    "kill": r"ended with signal 9 \(SIGKILL\) before the task did: the system may have run out of memory",
}


async def test_a_crash_fails_the_job_and_not_the_worker(app: MakeApp) -> None:
    here = app(pool_size=1)
    retried = here.task(
        name="retried", executor="process", autoretry_for=(ChildCrashed,), max_retries=1, retry_backoff=False
    )(crunch.crash)
    crash = here.task(executor="process")(crunch.crash)
    square = here.task(executor="process")(crunch.square)
    async with here, here.worker():
        for how, says in CRASHES.items():
            with pytest.raises(JobFailed, match=rf"ChildCrashed: the child process \d+ {says}"):
                await (await crash.enqueue(how)).result(timeout=20)
        with pytest.raises(MaxRetriesExceeded, match="ChildCrashed"):
            await (await retried.enqueue("exit")).result(timeout=20)
        assert await (await square.enqueue(3)).result(timeout=20) == 9


NINE = Order("tests.worker.crunch", "square", "square", encode_value([3]), NO_KWARGS, "", "id", 0.0, 1000)


@pytest.mark.usefixtures("server")
async def test_a_child_that_ended_while_it_was_idle_fails_no_job() -> None:
    pool = Pool(1)
    living = asyncio.create_task(pool.run())
    assert decode_value(await pool.call(NINE, nullcontext)) == 9
    (idle,) = children()
    os.kill(idle, signal.SIGKILL)
    while not gone(idle):  # the event loop has no chance to notice
        pass
    assert decode_value(await pool.call(NINE, nullcontext)) == 9
    living.cancel()
    await asyncio.wait([living])
    assert children() == set()


@pytest.mark.usefixtures("server")
async def test_a_child_that_does_not_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.worker.pool.START_WITHIN", 0.01)
    pool = Pool(1)
    with pytest.raises(ChildCrashed, match=r"a child process was not ready after 0\.01 s"):
        await pool.call(NINE, nullcontext)
    assert children() == set()
    monkeypatch.setattr("streamq.worker.pool.sys.executable", "/bin/false")
    monkeypatch.setattr("streamq.worker.pool.START_WITHIN", 60.0)
    with pytest.raises(ChildCrashed, match="ended with exit code 1 before"):
        await pool.call(NINE, nullcontext)


async def test_a_crash_is_seen_though_a_fork_of_the_child_lives(app: MakeApp, ledger: Path) -> None:
    here = app(pool_size=1)
    crash = here.task(executor="process")(crunch.crash_with_a_fork)
    async with here, here.worker():
        with pytest.raises(JobFailed, match="exit code 4"):
            await (await crash.enqueue(str(ledger))).result(timeout=10)
        _, fork = noted(ledger)
        assert not gone(fork)
        os.kill(fork, signal.SIGKILL)


async def test_a_child_leaves_ctrl_c_and_sigterm_to_the_worker(app: MakeApp) -> None:
    here = app(pool_size=1)
    survive = here.task(executor="process")(crunch.survive_the_worker_s_signals)
    session = here.task(executor="process")(crunch.session)
    async with here, here.worker():
        assert await (await survive.enqueue()).result(timeout=20) == "alive"
        pid, leader = await (await session.enqueue()).result(timeout=20)
        assert pid == leader  # the terminal's process group is another one


async def test_large_arguments_and_results(app: MakeApp) -> None:
    here = app(pool_size=1, max_payload=20_000_000)
    echo = here.task(executor="process")(crunch.echo)
    small = app(pool_size=1, max_payload=10_000)
    zeros = small.task(name="zeros", executor="process", queue="zeros")(crunch.zeros)
    data = os.urandom(1 << 20) * 10
    async with here, here.worker(queues=["default"]):
        assert await (await echo.enqueue(data)).result(timeout=30) == data
    async with small, small.worker(queues=["zeros"]):
        with pytest.raises(JobFailed, match=r"PayloadTooLarge: .*return value of .*zeros"):
            await (await zeros.enqueue(20_000)).result(timeout=20)


async def test_a_result_that_cannot_be_serialised(app: MakeApp) -> None:
    here = app(pool_size=1)
    bad = here.task(executor="process")(crunch.unserialisable)
    async with here, here.worker():
        with pytest.raises(JobFailed, match=r"InvalidResult: the return value of 'tests.*unserialisable'"):
            await (await bad.enqueue()).result(timeout=20)


async def test_middleware_stands_around_it_and_may_call_it_again(app: MakeApp) -> None:
    seen: list[object] = []

    class Twice(Middleware):
        async def run(self, ctx: Context[Any], proceed: Callable[[], Awaitable[object]]) -> object:
            seen.extend([await proceed(), await proceed()])
            return seen[-1]

    here = app(pool_size=1, middleware=[Twice()])
    area = here.task(executor="process", time_limit=30)(crunch.area)
    async with here, here.worker():
        assert await (await area.enqueue(crunch.Box(1, 1))).result(timeout=20) == crunch.Box(1, 1)
    assert seen == [crunch.Box(1, 1)] * 2


async def test_prints_and_logs_go_where_the_worker_s_go(app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    here = app(pool_size=1)
    speak = here.task(executor="process")(crunch.speak)
    log.configure("info", "json")
    async with here, here.worker():
        job = await speak.enqueue()
        await job.result(timeout=20)
    written = capfd.readouterr()
    assert written.out == "on stdout\n"
    (line,) = [line for line in written.err.splitlines() if "on stderr" in line]
    assert f'"job_id": "{job.id}"' in line
    assert "too much" not in written.err


async def test_a_killed_worker_takes_its_children_along(url: str, namespace: str, app: MakeApp, ledger: Path) -> None:
    here = app(lease="1s")
    script = str(Path(__file__).with_name("crunching.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, script, url, namespace, str(ledger))
    try:
        async with here:
            failing = await here.enqueue("fail")
            with pytest.raises(MaxRetriesExceeded, match="Mine: in crunching"):  # of __main__, by another name there
                await failing.result(timeout=20)
            job = await here.enqueue("hang", str(ledger))
            await until(lambda: len(noted(ledger)) == 1)
            (child,) = noted(ledger)
            assert not gone(child)
            process.kill()
            await process.wait()
            await until(lambda: gone(child), within=2)
            await job.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


UNGUARDED = """
import asyncio, sys
from streamq import StreamQ

app = StreamQ({url!r}, namespace={namespace!r})

@app.task(executor="process")
def task(): ...

async def main():
    async with app, app.worker():
        if __name__ == "__main__":
            print(await (await task.enqueue()).result(timeout=20, raises=False))

asyncio.run(main())
"""


async def test_a_script_that_starts_a_worker_when_it_is_imported_is_told(
    url: str, namespace: str, tmp_path: Path
) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED.format(url=url, namespace=namespace))
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert 'put what starts the worker under if __name__ == "__main__":' in run.stdout + run.stderr


async def test_on_uvloop_too(url: str, namespace: str) -> None:
    def run() -> None:
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(live())

    async def live() -> None:
        here: StreamQ[Any] = StreamQ(url, namespace=namespace, pool_size=1)
        square = here.task(executor="process")(crunch.square)
        crash = here.task(executor="process")(crunch.crash)
        async with here, here.worker():
            assert await (await square.enqueue(3)).result(timeout=20) == 9
            with pytest.raises(JobFailed, match="SIGSEGV"):
                await (await crash.enqueue("segfault")).result(timeout=20)

    await asyncio.to_thread(run)
    assert children() == set()
