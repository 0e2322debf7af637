"""`streamq worker` as a process: it runs jobs, drains, cancels, and waits for a Redis that is away."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from streamq import State, StreamQ
from streamq.broker.embedded import EmbeddedServer

from .conftest import Start

JOBS = """
import asyncio
from pathlib import Path
from streamq import StreamQ

app = StreamQ({url})

@app.task
async def add(x: int, y: int) -> int:
    return x + y

@app.task(queue="patient")
async def wait() -> str:
    Path("started").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "went"
"""


@pytest.fixture
def jobs(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "jobs.py").write_text(JOBS.format(url=""))
    (tmp_path / "fixed.py").write_text(JOBS.format(url="'redis://localhost:1/0'"))


@asynccontextmanager
async def producer(url: str, namespace: str) -> AsyncIterator[StreamQ[Any]]:
    async with StreamQ(url, namespace=namespace) as app:
        yield app


async def ended(process: Popen[str]) -> tuple[str, str]:
    async with asyncio.timeout(20):
        return await asyncio.to_thread(process.communicate)


async def line_with(process: Popen[str], text: str) -> str:
    """The next line of the log with that text in it."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while text not in (line := await asyncio.to_thread(process.stderr.readline)):
            assert line, f"the log ended before {text!r}"
    return line


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("target", ["shop.jobs:app", "shop.jobs", "shop/jobs.py:app"])
async def test_it_runs_what_is_queued(start: Start, url: str, namespace: str, target: str) -> None:
    task = "jobs.add" if "/" in target else "shop.jobs.add"
    async with producer(url, namespace) as app:
        job = await app.enqueue(task, 2, 3)
        process = start("worker", target, "--burst", STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace)
        out, err = await ended(process)
        assert await job.result(timeout=1) == 5
    assert process.returncode == 0
    assert out == ""
    assert f"{task}[{job.id}] SUCCESS" in err


@pytest.mark.usefixtures("jobs")
async def test_url_overrides_what_the_application_says(start: Start, url: str, namespace: str) -> None:
    async with producer(url, namespace) as app:
        job = await app.enqueue("fixed.add", 2, 3)
        process = start("worker", "fixed", "--burst", "--url", url, STREAMQ_NAMESPACE=namespace)
        await ended(process)
        assert await job.result(timeout=1) == 5


@pytest.mark.usefixtures("jobs")
async def test_only_the_queues_asked_for_are_served(start: Start, url: str, namespace: str) -> None:
    async with producer(url, namespace) as app:
        chosen = await app.send_task("shop.jobs.add", (1, 1), queue="high")
        other = await app.enqueue("shop.jobs.add", 1, 1)
        environ = {"STREAMQ_URL": url, "STREAMQ_NAMESPACE": namespace, "STREAMQ_QUEUES": "high:3,low"}
        process = start("worker", "shop.jobs", "--burst", "--loop", "asyncio", **environ)
        await ended(process)
        assert await chosen.status() is State.SUCCESS
        assert await other.status() is State.QUEUED
        await other.cancel()


@pytest.mark.usefixtures("jobs")
async def test_a_log_in_json(start: Start, url: str, namespace: str) -> None:
    async with producer(url, namespace) as app:
        job = await app.enqueue("shop.jobs.add", 2, 3)
        environ = {"STREAMQ_URL": url, "STREAMQ_NAMESPACE": namespace, "STREAMQ_LOG_FORMAT": "json"}
        process = start("worker", "shop.jobs", "--burst", **environ)
        _, err = await ended(process)
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["state"] for line in lines if line.get("job_id") == job.id] == ["SUCCESS"]


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_lets_the_running_job_end(
    start: Start, url: str, namespace: str, tmp_path: Path, stop: signal.Signals
) -> None:
    async with producer(url, namespace) as app:
        job = await app.send_task("shop.jobs.wait", queue="patient")
        process = start("worker", "shop.jobs", STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace)
        await until(lambda: (tmp_path / "started").exists())
        process.send_signal(stop)
        await line_with(process, "no new jobs")
        (tmp_path / "go").touch()
        await ended(process)
        assert process.returncode == 0
        assert await job.result(timeout=1) == "went"


@pytest.mark.usefixtures("jobs")
async def test_the_second_signal_gives_the_running_job_back(
    start: Start, url: str, namespace: str, tmp_path: Path
) -> None:
    async with producer(url, namespace) as app:
        job = await app.send_task("shop.jobs.wait", queue="patient")
        process = start("worker", "shop.jobs", STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace)
        await until(lambda: (tmp_path / "started").exists())
        process.send_signal(signal.SIGTERM)
        await line_with(process, "no new jobs")
        process.send_signal(signal.SIGTERM)
        _, err = await ended(process)
        assert process.returncode == 0
        assert "Traceback" not in err
        assert await job.status() is State.QUEUED
        await job.cancel()


@pytest.mark.usefixtures("jobs")
async def test_with_redis_down_it_waits_with_a_line_a_try(start: Start) -> None:
    process = start("worker", "fixed")
    first = await line_with(process, "cannot reach redis://localhost:1/0")
    assert "next try in" in first
    assert process.stderr is not None
    again = await asyncio.to_thread(process.stderr.readline)
    assert "next try in" in again
    process.send_signal(signal.SIGTERM)
    _, err = await ended(process)
    assert process.returncode == 0
    assert "Traceback" not in first + again + err


async def test_a_server_that_would_evict_jobs_is_refused(start: Start, jobs: None, tmp_path: Path) -> None:
    with EmbeddedServer.start() as server:
        async with producer(server.url, "any") as app:
            await app.broker.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
        process = start("worker", "shop.jobs", "--url", server.url)
        _, err = await ended(process)
    assert process.returncode == 5
    assert "maxmemory-policy is allkeys-lru" in err
    assert "Traceback" not in err


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
