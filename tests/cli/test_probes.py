"""What a worker says to those who ask: people, probes, Prometheus, systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.commands import READY, Command, Worker, producer
from tests.worker.crews import Ledger, environment, until
from tests.worker.waits import one_server

pytestmark = one_server


# ---- looking ------------------------------------------------------------------------------------------------------


async def test_check_says_what_would_be_served(worker: Worker, url: str, namespace: str) -> None:
    command = worker("shop:app", "--check", "-Q", "high:3,default", "-p", "2")
    assert await command.ended() == 0
    assert command.process.stdout is not None
    said = dict(line.split("\t", 1) for line in command.process.stdout.read().decode().splitlines())
    assert said.pop("server").startswith(f"{url}, version ")
    assert said == {
        "application": "shop:app",
        "namespace": namespace,
        "queues": "high:3, default:1",
        "tasks": "block, brief, grow, hold, pid, plain, version",
        "schedules": "none",
        "processes": "2",
        "concurrency": "100",
        "grace": "25 s",
    }
    assert command.said == ""


async def test_check_without_redis(worker: Worker) -> None:
    command = worker("shop:app", "--check", "--url", "redis://localhost:1/0")
    assert await command.ended() == 3
    assert command.said.startswith("streamq: cannot reach Redis")


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_sigusr1_names_each_job_and_its_line(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger, processes: str
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "-p", processes)
        await command.says(READY if processes == "2" else "jobs at once from")
        jobs = {name: await app.enqueue(name) for name in ("hold", "plain")}
        await until(lambda: len(ledger.of("HOLD")) == len(ledger.of("PLAIN")) == 1)
        os.kill(command.process.pid, signal.SIGUSR1)
        await command.says("\n===\n", times=int(processes))
        for name, place in ("hold", "here it waits"), ("plain", "here a thread waits"):
            job = command.said.index(f"{name}[{jobs[name].id}]")
            assert f", in {name}\n" in command.said[job:]
            assert place in command.said[job:]
        assert "--- thread MainThread" in command.said
        (tmp_path / "go").touch()
        assert [await job.result(timeout=10) for job in jobs.values()] == [1, None]


async def test_sigusr1_shows_a_job_that_holds_the_event_loop(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app")
        await command.says("jobs at once from")
        job = await app.enqueue("block")
        await until(lambda: len(ledger.of("BLOCK")) == 1)
        os.kill(command.process.pid, signal.SIGUSR1)
        await command.says("\n===\n")
        assert f"block[{job.id}]" in command.said
        assert ", in block\n" in command.said[command.said.index("--- thread MainThread") :]
        (tmp_path / "go").touch()
        await job.result(timeout=10)


async def test_no_password_is_in_the_process_list(worker: Worker, url: str) -> None:
    command = worker("shop:app", "-p", "2", "--url", url + "?secret=1" if "://" not in url else url)
    await command.says(READY)
    for pid in command.children:
        assert url not in Path(f"/proc/{pid}/cmdline").read_text()
        assert Path(f"/proc/{pid}/cmdline").read_text().endswith("worker\0shop:app\0")


async def test_the_projects_file_is_read_by_each_process(
    worker: Worker, tmp_path: Path, ledger: Ledger, url: str, namespace: str
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "streamq.toml").write_text('app = "shop:app"\n[worker]\nprocesses = 2\nconcurrency = 3\n')
    environ = environment(tmp_path, url, namespace)
    environ["PYTHONPATH"] = environ["PYTHONPATH"].split(os.pathsep)[0]
    command = Command(below, environ, ())
    try:
        await command.says(READY)
        assert command.said.count("3 jobs at once from") == 2
    finally:
        command.kill()


# ---- probes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_probes_and_metrics(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger, processes: str
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "--health-port", "0", "-p", processes)
        await command.says("health: http://127.0.0.1:")
        assert command.get("/livez") == (200, "ok\n")
        await until(lambda: command.get("/readyz") == (200, "ok\n"))
        jobs = [await app.enqueue("brief", number) for number in range(5)]
        held = await app.enqueue("hold")
        for job in jobs:
            await job.result(timeout=10)

        def figures() -> dict[str, float]:
            lines = [line for line in command.get("/metrics")[1].splitlines() if not line.startswith("#")]
            return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

        done = 'streamq_jobs_finished_total{queue="default",state="SUCCESS"}'
        await until(lambda: figures().get(done) == 5)
        await until(lambda: figures().get('streamq_jobs_running{queue="default"}') == 1)
        found = figures()
        assert found["streamq_ready"] == 1
        assert found['streamq_job_seconds_count{queue="default"}'] == 5
        assert 0.1 <= found['streamq_job_seconds_sum{queue="default"}'] < 10
        assert found["streamq_resident_memory_bytes"] > 10_000_000 * int(processes)
        assert found["streamq_loop_lag_seconds"] < 10
        assert found.get('streamq_children{state="ready"}') == (2 if processes == "2" else None)
        assert not [name for name in found if held.id in name]
        command.process.terminate()
        await until(lambda: command.get("/readyz") == (503, "draining\n"))
        assert command.get("/livez")[0] == 200
        (tmp_path / "go").touch()
        assert await command.ended() == 0


async def test_not_ready_while_redis_is_away_or_a_process_is_missing(worker: Worker, url: str) -> None:
    command = worker("shop:app", "--health-port", "0", "-p", "2", STREAMQ_URL="redis://localhost:1/0")
    await command.says("next try in")
    assert command.get("/readyz") == (503, "0 of 2 processes are ready\n")
    assert command.get("/livez")[0] == 200
    assert command.get("/nowhere")[0] == 404
    assert command.get("/readyz", "POST") == (405, "GET or HEAD\n")
    assert command.get("/livez", "HEAD") == (200, "")


# ---- systemd ------------------------------------------------------------------------------------------------------


class Systemd:
    """A manager's end of sd_notify."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._said: list[str] = []

    def heard(self) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self._said += self._socket.recv(4096).decode().splitlines()
        return self._said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_systemd_is_told(worker: Worker, systemd: Systemd, processes: str) -> None:
    command = worker("shop:app", "-p", processes, NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="200000")
    await until(lambda: "READY=1" in systemd.heard())
    await until(lambda: systemd.heard().count("WATCHDOG=1") >= 5)
    await until(lambda: any(line.startswith("STATUS=") and "ready" in line for line in systemd.heard()))
    if processes == "2":
        for pid in command.children:
            assert "NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_text()
        os.kill(command.process.pid, signal.SIGHUP)
        await until(lambda: "RELOADING=1" in systemd.heard())
        await until(lambda: systemd.heard().count("READY=1") == 2)
        told = systemd.heard()
        assert told[told.index("RELOADING=1") + 1].startswith("MONOTONIC_USEC=")
    command.process.terminate()
    assert await command.ended() == 0
    assert systemd.heard().count("STOPPING=1") == 1


async def test_the_watchdog_is_not_fed_while_the_loop_stands_still(
    worker: Worker, systemd: Systemd, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        worker("shop:app", NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="100000")
        await until(lambda: "WATCHDOG=1" in systemd.heard())
        job = await app.enqueue("block")
        await until(lambda: len(ledger.of("BLOCK")) == 1)
        fed = systemd.heard().count("WATCHDOG=1")
        await asyncio.sleep(0.5)  # ten times the ping's interval
        assert systemd.heard().count("WATCHDOG=1") == fed
        (tmp_path / "go").touch()
        await job.result(timeout=10)
        await until(lambda: systemd.heard().count("WATCHDOG=1") > fed)
