"""The examples do what they say: scripts and servers as their docstrings start them, or through their lifespan."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

PLAIN = """\
add: 5
shout: HEY
retries: example.org on attempt 3
delayed: SCHEDULED then 42
idempotent: True True 7
progress: 3 of 3, page 3
resized: 3
dead letter: rejected - streamq.Reject: customer 42 is gone
"""

HABITS = """\
delay: 5
countdown: 42
eta: the late report
send_task: 2
signature: 9
enqueue_sync: order 7 paid after 1 retry
beat: the pulse was felt
"""

CRON = """\
schedules: pulse, second, nightly
pulse: a second apart: True, each once: True
second: a second apart: True, each once: True
0 3 * * * Europe/Berlin in winter: 2026-01-15T02:00:00+00:00
0 3 * * * Europe/Berlin in summer: 2026-07-15T01:00:00+00:00
"""

RETRIES = """\
flaky: book on attempt 3
gave up: httpx.HTTPStatusError after 4 attempts
dead letter: exhausted with 4 failures
replayed: 1
now: book on attempt 1
rejected: streamq.Reject: /orders/9 does not exist
discarded: 1
"""

ENCRYPTED = """\
call: charge(7, card='***')
readable in Redis: False
result: customer 7, card ending in 4242
by the old key: customer 8, card ending in 4444
forged: streamq.BadSignature: it is not signed
dead letter: bad_signature
"""

IMAGES = """\
dawn 320 x 160
dawn 160 x 80
dawn 80 x 40
dune 320 x 187
dune 160 x 93
dune 80 x 47
lake 320 x 213
lake 160 x 107
lake 80 x 53
moon 320 x 240
moon 160 x 120
moon 80 x 60
snow 320 x 267
snow 160 x 133
snow 80 x 67
wave 320 x 293
wave 160 x 147
wave 80 x 73
"""


def run(script: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as a user starts it, and with warnings as errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**kept, "PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "prints"),
    [
        ("plain.py", PLAIN),
        ("celery_habits.py", HABITS),
        ("cron.py", CRON),
        ("retries.py", RETRIES),
        ("encrypted.py", ENCRYPTED),
    ],
)
def test_a_script_prints_what_it_promises(script: str, prints: str) -> None:
    done = run(EXAMPLES / script)
    assert (done.returncode, done.stdout, done.stderr) == (0, prints, "")


def test_images_are_resized_under_a_bar_that_grows() -> None:
    done = run(EXAMPLES / "images.py")
    bars = done.stderr.split("\n")  # each began with \r, which is an end of a line to `text=True`
    assert (done.returncode, done.stdout) == (0, IMAGES), done.stderr
    assert bars[-2:] == [f"{'#' * 40} 100%", ""]
    assert bars[:-1] == sorted(bars[:-1], key=lambda bar: bar.count("#"))


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(example: Path) -> None:
    text = example.read_text()
    assert len(text.splitlines()) < 90
    assert f"examples/{example.name}" in text or f"--app-dir examples {example.stem}:" in text


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def inside(name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[httpx.AsyncClient, None]:
    """An example whose worker is inside: a client of its application, between start-up and shutdown."""
    monkeypatch.delenv("STREAMQ_URL", raising=False)
    example = load(name)
    try:
        api = example.api
        lifespan = api.lifespan() if name == "litestar_app" else api.router.lifespan_context(api)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://shop")
        async with lifespan, client:
            yield client
            await example.queue.dead_letters().discard()
    finally:
        del sys.modules[name]


async def test_fastapi_with_the_worker_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside("fastapi_app", monkeypatch) as client:
        made = await client.post("/thumbnails", params={"url": "https://example.org/cat.png"})
        assert made.status_code == 202
        answer = await ended(client, made.json()["job_id"])
        assert answer["status"] == "SUCCESS"
        assert answer["result"] == "https://example.org/cat.png?width=128"

        refused = await client.post("/thumbnails", params={"url": "ftp://example.org"})
        answer = await ended(client, refused.json()["job_id"])
        assert (answer["status"], answer["result"]) == ("FAILURE", None)
        assert "ftp://example.org is not an address that I fetch" in answer["error"]

        assert (await client.get("/jobs/unknown")).status_code == 404


async def test_starlette_with_events_until_the_job_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside("starlette_app", monkeypatch) as client:
        made = await client.post("/imports", params={"rows": "1000"})
        assert made.status_code == 202
        followed = await client.get(f"/imports/{made.json()['job_id']}")
        assert followed.headers["content-type"].startswith("text/event-stream")
        told = [event.removeprefix("event: ").split("\ndata: ") for event in followed.text.strip().split("\n\n")]
        *progress, last = [(name, json.loads(data)) for name, data in told]
        assert last == ("done", 1000)
        assert progress, "half a second of work, looked at five times a second"
        assert [name for name, _ in progress] == ["progress"] * len(progress)
        assert [part for _, part in progress] == sorted(part for _, part in progress)

        assert (await client.get("/imports/unknown")).status_code == 404
        assert (await client.post("/imports", params={"rows": "many"})).status_code == 400


async def test_litestar_with_delays_that_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside("litestar_app", monkeypatch) as client:
        made = await client.post("/reminders", params={"text": "tea", "minutes": 3})
        assert made.status_code == 202
        reminder = made.json()
        assert reminder["status"] == "SCHEDULED"
        assert reminder["due"] is not None

        cancelled = await client.delete(f"/reminders/{reminder['job_id']}")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")

        at_once = await client.post("/reminders", params={"text": "tea"})
        assert (await ended(client, at_once.json()["job_id"], "/reminders"))["status"] == "SUCCESS"
        assert (await client.get("/reminders/unknown")).status_code == 404


async def ended(client: httpx.AsyncClient, job_id: str, path: str = "/jobs") -> dict[str, Any]:
    """What a browser does: ask until the job has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer: dict[str, Any] = (await client.get(f"{path}/{job_id}")).json()
        if answer["status"] in ("SUCCESS", "FAILURE"):
            return answer
    raise AssertionError(f"{job_id} did not end")


# ---- the worker outside: both processes as the docstring starts them ----------------------------------------


def free_port() -> int:
    with socket.socket() as chance:
        chance.bind(("127.0.0.1", 0))
        return int(chance.getsockname()[1])


@contextmanager
def process(folder: Path, *words: str) -> Generator[subprocess.Popen[str], None, None]:
    """Started from the root of the project, on the server that whoever comes first starts in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    said = folder / f"{len(list(folder.glob('*.log')))}.log"
    with said.open("w") as log:
        started = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**kept, "PYTHONPATH": str(ROOT), "STREAMQ_URL": f"embedded://{folder}/server"},
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield started
        started.terminate()
        started.wait(timeout=20)
        assert "Traceback" not in said.read_text(), said.read_text()
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


@contextmanager
def outside(folder: Path, example: str, *server: str) -> Generator[httpx.Client, None, None]:
    """A client of a server that only enqueues, beside a worker; the server was there first, and has the queue's."""
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in server]
    with process(folder, *words) as api, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        listening(port, api)
        client.get("/reports/first" if example == "fastapi_client.py" else "/jobs/first")  # opens the server
        with process(folder, "-m", "streamq", "worker", f"examples/{example}") as worker:
            yield client
        assert worker.returncode == 0


def listening(port: int, api: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and api.poll() is None:
        with socket.socket() as line:
            if line.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}, exit code {api.poll()}")


def test_fastapi_with_the_worker_outside(tmp_path: Path) -> None:
    server = ("-m", "uvicorn", "--app-dir", "examples", "fastapi_client:api", "--port", "PORT")
    with outside(tmp_path, "fastapi_client.py", *server) as client:
        made = client.post("/reports", params={"month": "2026-11"})
        assert made.status_code == 202
        again = client.post("/reports", params={"month": "2026-11"})
        assert again.json()["job_id"] == made.json()["job_id"]

        report = client.get(f"/reports/{made.json()['job_id']}", params={"wait": 20}).json()
        assert report["status"] == "SUCCESS"
        assert report["result"] == "the report of 2026-11: 10 pages"
        assert client.get("/reports/unknown").status_code == 404


def test_flask_with_the_worker_outside(tmp_path: Path) -> None:
    server = ("-m", "flask", "--app", "examples/flask_app.py", "run", "--port", "PORT")
    with outside(tmp_path, "flask_app.py", *server) as client:
        made = client.post("/invoices/42")
        assert (made.status_code, made.json()["known_before"]) == (202, False)
        assert client.post("/invoices/42").json() == {"job_id": made.json()["job_id"], "known_before": True}
        answer = client.get(f"/jobs/{made.json()['job_id']}", params={"wait": 20})
        assert (answer.status_code, answer.json()) == (200, {"result": "invoice 42 is on its way"})

        wrong = client.post("/invoices/-1").json()["job_id"]
        answer = client.get(f"/jobs/{wrong}", params={"wait": 20})
        assert "ValueError: there is no invoice -1" in answer.json()["error"]
        assert client.get("/jobs/unknown").status_code == 404


def test_django_with_the_worker_outside(tmp_path: Path) -> None:
    server = ("examples/django_app.py", "runserver", "--noreload", "PORT")
    with outside(tmp_path, "django_app.py", *server) as client:
        made = client.post("/orders/7")
        assert made.status_code == 202
        answer = client.get(f"/jobs/{made.json()['job_id']}")
        assert (answer.status_code, answer.json()) == (200, {"result": "order 7 is confirmed"})
        assert client.get("/jobs/unknown").status_code == 404
