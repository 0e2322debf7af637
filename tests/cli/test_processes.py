"""`streamq worker` with several processes: how it starts, stops and replaces them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from streamq import State
from tests.cli.commands import READY, Worker, producer
from tests.worker.crews import JOBS, Ledger, environment, until, write_jobs
from tests.worker.waits import one_server

pytestmark = one_server


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
        await asyncio.sleep(0.2)  # long enough for it to be obeyed
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
    write_jobs(tmp_path)
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


async def test_under_nohup_a_process_alone_goes_on(worker: Worker, url: str, namespace: str) -> None:
    async with producer(url, namespace) as app:
        command = worker("shop:app", under=("nohup",))
        await command.says("jobs at once from")
        command.process.send_signal(signal.SIGHUP)
        assert await (await app.enqueue("version")).result(timeout=10) == 1
        command.process.terminate()
        assert await command.ended() == 0
        assert "SIGHUP" not in command.said


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
