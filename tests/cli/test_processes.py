"""`streamq worker` with several processes: signals, probes, systemd, reloading, and what happens if all goes wrong."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from streamq import State, StreamQ
from tests.worker.crews import JOBS, Ledger, environment, until, write_jobs
from tests.worker.waits import one_server

pytestmark = one_server
READY = "worker processes are ready"


class Command:
    """One `streamq worker`, its log in a file, in a process group of its own as a shell makes it."""

    def __init__(self, folder: Path, environ: dict[str, str], words: tuple[str, ...]) -> None:
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamq", "worker", *words],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    async def says(self, text: str, times: int = 1) -> None:
        def enough() -> bool:
            assert self.process.poll() is None or self.said.count(text) >= times, self.said
            return self.said.count(text) >= times

        await until(enough)

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None)
        return self.process.returncode

    @property
    def children(self) -> list[int]:
        return [
            int(found)
            for found in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        found = re.search(r"health: (http://\S+)/livez", self.said)
        assert found, self.said
        request = urllib.request.Request(f"{found[1]}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


Worker = Callable[..., Command]


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> None:
    write_jobs(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def worker(tmp_path: Path, url: str, namespace: str) -> Iterator[Worker]:
    started: list[Command] = []

    def start(*words: str, **environ: str) -> Command:
        started.append(Command(tmp_path, environment(tmp_path, url, namespace, **environ), words))
        return started[-1]

    yield start
    for command in started:
        for pid in [*(command.children if command.process.poll() is None else []), command.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()
        assert command.process.stdout is not None
        command.process.stdout.close()


@asynccontextmanager
async def producer(url: str, namespace: str) -> AsyncIterator[StreamQ[Any]]:
    async with StreamQ(url, namespace=namespace, lease="1s") as app:
        yield app


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- stopping ---------------------------------------------------------------------------------------------------


async def test_the_first_signal_drains_and_the_second_gives_back(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "-p", "2")
        await command.says(READY)
        jobs = [await app.enqueue("hold") for _ in range(4)]
        await until(lambda: len(ledger.of("HOLD")) == 4)
        command.process.terminate()
        await command.says("the supervisor: no new jobs", times=len({pid for (pid,) in ledger.of("HOLD")}))
        assert {await job.status() for job in jobs} == {State.STARTED}
        command.process.terminate()
        assert await command.ended() == 0
        assert {await job.status() for job in jobs} == {State.QUEUED}
        assert "Traceback" not in command.said
        for job in jobs:
            await job.cancel()


async def test_ctrl_c_in_a_terminal_is_heard_once(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "-p", "2")
        await command.says(READY)
        job = await app.enqueue("hold")
        await until(lambda: len(ledger.of("HOLD")) == 1)
        os.killpg(command.process.pid, signal.SIGINT)  # a terminal sends it to all of the foreground's group
        await command.says("the supervisor: no new jobs", times=2)
        (tmp_path / "go").touch()
        assert await command.ended() == 0
        assert await job.result(timeout=1) == 1


async def test_a_stop_that_reaches_everybody_is_one_stop(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "-p", "2")
        await command.says(READY)
        job = await app.enqueue("hold")
        await until(lambda: len(ledger.of("HOLD")) == 1)
        children = command.children
        for pid in [*children, command.process.pid]:  # as systemd does
            os.kill(pid, signal.SIGTERM)
        await command.says("no new jobs", times=3)
        (busy,) = ledger.of("HOLD")[0]
        os.kill(int(busy), signal.SIGTERM)
        (tmp_path / "go").touch()
        assert await command.ended() == 0
        assert await job.result(timeout=1) == 1


async def test_children_end_with_their_supervisor_and_give_back_what_they_ran(
    worker: Worker, url: str, namespace: str, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "-p", "2", "--grace", "0.3s")
        await command.says(READY)
        children, job = command.children, await app.enqueue("hold")
        await until(lambda: len(ledger.of("HOLD")) == 1)
        command.process.kill()
        await until(lambda: not any(map(lives, children)))
        assert (await app.broker.find("default", job.id)).consumer == "nobody"
        await job.cancel()


async def test_a_process_that_still_imports_ends_with_its_supervisor(
    worker: Worker, tmp_path: Path, ledger: Ledger
) -> None:
    write_jobs(tmp_path, JOBS + "time.sleep(1000)\n")
    command = worker("shop:app", "-p", "2")
    await until(lambda: len(ledger.of("UP")) == 1)
    (child,) = command.children
    command.process.kill()
    await until(lambda: not lives(child))


async def test_a_terminal_that_is_closed_takes_its_worker_with_it(
    url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    terminal, its_end = os.openpty()
    log = tmp_path / "log"
    process = subprocess.Popen(
        ["sh", "-c", f"exec {sys.executable} -m streamq worker shop:app -p 2 2> {log}"],
        cwd=tmp_path,
        env=environment(tmp_path, url, namespace),
        preexec_fn=lambda: os.login_tty(its_end),
    )
    try:
        os.close(its_end)
        await until(lambda: log.exists() and READY in log.read_text())
        process.send_signal(signal.SIGHUP)  # the terminal is there: this asks for new processes
        await until(lambda: "all worker processes have been replaced" in log.read_text())
        os.close(terminal)
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert "SIGHUP, and the terminal is gone" in log.read_text()
    finally:
        process.kill()
        process.wait()


async def test_a_stop_while_the_first_process_starts(worker: Worker, tmp_path: Path, ledger: Ledger) -> None:
    write_jobs(tmp_path, JOBS + "time.sleep(1000)\n")
    command = worker("shop:app", "-p", "2")
    await until(lambda: len(ledger.of("UP")) == 1)
    command.process.terminate()
    assert await command.ended() == 0


# ---- bad starts -------------------------------------------------------------------------------------------------


async def test_a_module_that_does_not_exist_is_said_once(worker: Worker, tmp_path: Path) -> None:
    command = worker("shpo:app", "-p", "3")
    assert await command.ended() == 2
    assert command.said == dedent(f"""\
        streamq: there is no module 'shpo'

          where  {tmp_path} and the installed packages
          cause  the name is misspelt, or the command is typed in another folder
          type   streamq worker shop:app
        """)


async def test_a_port_that_is_taken(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for processes in "1", "2":
            command = worker("shop:app", "--health-port", str(port), "-p", processes)
            assert await command.ended() == 2
            assert command.said == dedent(f"""\
                streamq: cannot serve /livez, /readyz and /metrics on 127.0.0.1:{port}

                  where  --health-host and --health-port
                  cause  address already in use
                  type   ss -ltnp 'sport = :{port}'    shows who has it; or give another --health-port
                """)


async def test_no_redis_is_one_line_a_try_however_many_processes(worker: Worker) -> None:
    command = worker("shop:app", "-p", "3", STREAMQ_URL="redis://localhost:1/0")
    await command.says("next try in", times=3)
    assert len(command.children) == 1
    command.process.terminate()
    assert await command.ended() == 0


@pytest.mark.parametrize("words", [("-p", "0"), ("-p", "many"), ("--max-memory", "500XB"), ("--max-jobs", "0")])
async def test_numbers_that_cannot_be(worker: Worker, words: tuple[str, str]) -> None:
    command = worker("shop:app", *words)
    assert await command.ended() == 2
    assert f"Invalid value for '{words[0]}'" in command.said
    assert "Traceback" not in command.said


async def test_reload_without_its_package(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    command = worker("shop:app", "--reload")
    assert await command.ended() == 2
    assert command.said.splitlines()[0] == "streamq: --reload needs the package watchfiles, which is not installed"
    assert 'pip install "streamq[reload]"' in command.said


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
        command.process.terminate()
        assert await command.ended() == 0
    finally:
        command.process.kill()
        command.process.communicate()


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


# ---- replacing ----------------------------------------------------------------------------------------------------


async def test_sighup_over_the_command_line_keeps_ready(worker: Worker) -> None:
    command = worker("shop:app", "-p", "2", "--health-port", "0")
    await until(lambda: "health: " in command.said and command.get("/readyz")[0] == 200)
    before, codes = set(command.children), set[int]()
    os.kill(command.process.pid, signal.SIGHUP)
    async with asyncio.timeout(20):
        while "all worker processes have been replaced" not in command.said:
            codes.add((await asyncio.to_thread(command.get, "/readyz"))[0])
    assert codes == {200}
    assert not before & set(command.children)


async def test_a_change_of_the_source_starts_anew_and_gives_running_jobs_back(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "--reload")
        await command.says(READY)
        assert await (await app.enqueue("version")).result(timeout=10) == 1
        held = await app.enqueue("hold")
        await until(lambda: len(ledger.of("HOLD")) == 1)
        write_jobs(tmp_path, JOBS.replace("VERSION = 1", "VERSION = 2 +"))
        await command.says("the next change of a file is waited for")
        await asyncio.sleep(0.5)  # long enough for another try
        assert command.children == []
        assert command.said.count("SyntaxError") == 1
        (tmp_path / "go").touch()
        write_jobs(tmp_path, JOBS.replace("VERSION = 1", "VERSION = 3"))
        assert await held.result(timeout=10) == 3
        assert "shop.py changed" in command.said


async def test_sighup_lets_a_process_alone_drain(
    worker: Worker, url: str, namespace: str, tmp_path: Path, ledger: Ledger
) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", "--no-beat")
        await command.says("jobs at once from")
        job = await app.enqueue("hold")
        await until(lambda: len(ledger.of("HOLD")) == 1)
        command.process.send_signal(signal.SIGHUP)
        await command.says("SIGHUP: no new jobs")
        (tmp_path / "go").touch()
        assert await command.ended() == 0
        assert await job.result(timeout=1) == 1
