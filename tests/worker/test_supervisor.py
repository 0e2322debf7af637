"""Worker processes under a supervisor: replaced when they end, one by one when asked, and none left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from streamq import State
from tests.conftest import MakeApp
from tests.worker.crews import CRASHING, JOBS, Ledger, pids, serving, supervised, until, write_jobs
from tests.worker.waits import one_server

pytestmark = one_server


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> None:
    write_jobs(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


async def test_a_killed_process_is_replaced_and_every_job_ends(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    here = app(lease="1s")
    async with here, supervised(tmp_path, url, namespace, 2) as supervisor:
        first = pids(supervisor)
        jobs = [await here.enqueue("brief", number) for number in range(60)]
        await until(lambda: len(ledger.of("END")) >= 10)
        os.kill(first[0], signal.SIGKILL)
        assert [await job.result(timeout=20) for job in jobs] == list(range(60))
        await until(lambda: serving(supervisor) == 2)
        now = pids(supervisor)
        assert supervisor.restarts["ended"] == 1
    assert now[1] == first[1]
    assert now[0] != first[0]
    starts = Counter(number for number, _ in ledger.of("START"))
    again = {number for number, count in starts.items() if count > 1}
    of_the_killed = {number for number, pid in ledger.of("START") if pid == str(first[0])}
    assert len(starts) == 60
    assert again <= of_the_killed
    assert len(again) <= 5  # what it held


async def test_a_crash_loop_slows_down(
    url: str, namespace: str, tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    write_jobs(tmp_path, CRASHING)
    with caplog.at_level(logging.ERROR, "streamq.supervisor"):
        async with supervised(tmp_path, url, namespace, 1) as supervisor:
            await until(lambda: len(caplog.records) >= 3)
            assert len(ledger.of("UP")) == 3
            await until(lambda: bool(supervisor.living))
            assert time.time() - caplog.records[2].created >= 0.45
    pauses = [float(found) for found in re.findall(r"exit code 7\); another one starts in (\S+) s", caplog.text)]
    assert pauses[:3] == sorted(pauses[:3])
    assert 0.5 <= pauses[2] <= 1.0


async def test_replacing_all_under_load_loses_nothing_and_no_capacity(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    here, fewest = app(lease="1s"), 2

    async def watch() -> None:
        nonlocal fewest
        while True:
            fewest = min(fewest, serving(supervisor))
            await asyncio.sleep(0.001)

    async with here, supervised(tmp_path, url, namespace, 2) as supervisor:
        before, watching, jobs = pids(supervisor), asyncio.create_task(watch()), []
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(20):
            while set(pids(supervisor)) & set(before):
                jobs.append(await here.enqueue("brief", len(jobs)))
                await asyncio.sleep(0.01)
        assert [await job.result(timeout=20) for job in jobs] == list(range(len(jobs)))
        watching.cancel()
    assert fewest == 2
    assert {pid for _, pid in ledger.of("START")} >= set(map(str, before))
    assert Counter(number for number, _ in ledger.of("START")) == Counter(map(str, range(len(jobs))))


async def test_a_successor_that_does_not_start_leaves_the_old_process_running(
    url: str, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "streamq.supervisor"):
        async with supervised(tmp_path, url, namespace, 2) as supervisor:
            before = pids(supervisor)
            write_jobs(tmp_path, "def (:\n")
            supervisor.restart()
            await until(lambda: "ended before it was ready (exit code 1)" in caplog.text)
            assert f"worker process 1 (pid {before[0]}) goes on in its place" in caplog.text
            assert (pids(supervisor), serving(supervisor)) == (before, 2)
            write_jobs(tmp_path)
            supervisor.restart()
            await until(lambda: "all worker processes have been replaced" in caplog.text)
            assert not set(before) & set(pids(supervisor))


async def test_a_process_that_cannot_be_started_is_tried_again(
    url: str, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(tmp_path, url, namespace, 1) as supervisor:
        command, supervisor._command = supervisor._command, [str(tmp_path / "nothing")]
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        await until(lambda: caplog.text.count("worker process 1 cannot be started") >= 2)
        supervisor._command = command
        await until(lambda: serving(supervisor) == 1)


async def test_a_new_round_gives_up_one_that_is_stuck(
    url: str, namespace: str, tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "streamq.supervisor"):
        async with supervised(tmp_path, url, namespace, 1) as supervisor:
            before = pids(supervisor)
            write_jobs(tmp_path, JOBS + "time.sleep(1000)\n")
            supervisor.restart()
            await until(lambda: len(ledger.of("UP")) == 2)
            assert (pids(supervisor), serving(supervisor)) == (before, 1)
            write_jobs(tmp_path)
            supervisor.restart()
            await until(lambda: "all worker processes have been replaced" in caplog.text)
            assert pids(supervisor) != before


async def test_a_process_that_does_not_end_is_killed_and_says_so_in_the_exit_code(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    here, crew, codes = app(lease="1s"), {"grace": "0.2s"}, list[int]()
    async with here:
        async with supervised(tmp_path, url, namespace, 1, margin=0.3, worker=crew, codes=codes) as supervisor:
            job = await here.enqueue("block")
            await until(lambda: len(ledger.of("BLOCK")) == 1)
            supervisor.stop()
            await until(lambda: not supervisor.living)
        assert "did not end and was killed" in caplog.text
        assert codes == [1]
        (tmp_path / "go").touch()
        async with supervised(tmp_path, url, namespace, 1, codes=codes):
            await job.result(timeout=10)
        assert codes == [1, 0]


async def test_a_process_is_replaced_after_so_many_jobs(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    here = app(lease="1s")
    async with here, supervised(tmp_path, url, namespace, 1, max_jobs=20) as supervisor:
        jobs, served = [], []
        async with asyncio.timeout(20):
            while supervisor.restarts["max-jobs"] < 2:
                jobs.append(await here.enqueue("brief", len(jobs)))
                served.append(serving(supervisor))
                await asyncio.sleep(0.005)
        assert [await job.result(timeout=20) for job in jobs] == list(range(len(jobs)))
    by_process = Counter(pid for _, pid in ledger.of("START"))
    assert set(served) == {1}
    assert min(list(by_process.values())[:2]) >= 20
    assert sum(by_process.values()) == len(jobs)


async def test_a_process_that_grew_is_replaced(app: MakeApp, url: str, namespace: str, tmp_path: Path) -> None:
    here = app(lease="1s")
    async with here, supervised(tmp_path, url, namespace, 1, max_memory=180_000_000) as supervisor:
        first = pids(supervisor)
        assert await (await here.enqueue("pid")).result(timeout=10) == first[0]
        assert supervisor.restarts.total() == 0
        assert await (await here.enqueue("grow")).result(timeout=10) == first[0]
        await until(lambda: supervisor.restarts["max-memory"] == len(supervisor.living) == 1)
        assert await (await here.enqueue("pid")).result(timeout=10) == pids(supervisor)[0] != first[0]


async def test_a_burst_ends_when_the_queues_are_empty(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    here = app(lease="1s")
    async with here:
        jobs = [await here.enqueue("brief", number) for number in range(30)]
        async with supervised(tmp_path, url, namespace, 2, worker={"burst": True}) as supervisor:
            assert [await job.result(timeout=20) for job in jobs] == list(range(30))
            await until(lambda: not supervisor.living)
        assert supervisor.restarts.total() == 0
    assert len(ledger.of("UP")) == 2


async def test_a_worker_that_is_named_has_another_name_in_each_process(
    app: MakeApp, url: str, namespace: str, tmp_path: Path
) -> None:
    here = app(lease="1s")
    async with here, supervised(tmp_path, url, namespace, 2, worker={"name": "mill"}):
        while len(names := sorted(worker.id for worker in await here.queue().workers())) < 2:
            await asyncio.sleep(0.01)  # the second has yet to say that it lives
    assert [re.sub("-[0-9a-f]{6}$", "", name) for name in names] == ["mill-1", "mill-2"]


async def test_jobs_of_a_cancelled_crew_are_given_back(
    app: MakeApp, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    here = app(lease="1s")
    async with here:
        async with supervised(tmp_path, url, namespace, 1):
            job = await here.enqueue("hold")
            await until(lambda: len(ledger.of("HOLD")) == 1)
        assert await job.status() is State.QUEUED
        assert (await here.broker.find("default", job.id)).consumer == "nobody"
        await job.cancel()
