"""The examples do what they say: scripts as a user runs them, and the web application through its lifespan."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
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
dead letter: rejected - streamq.core.outcome.Reject: customer 42 is gone
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


@pytest.mark.parametrize(("script", "prints"), [("plain.py", PLAIN), ("celery_habits.py", HABITS)])
def test_a_script_prints_what_it_promises(script: str, prints: str) -> None:
    done = run(EXAMPLES / script)
    assert (done.returncode, done.stdout, done.stderr) == (0, prints, "")


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


async def test_fastapi_with_the_worker_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMQ_URL", raising=False)
    example = load("fastapi_app")
    try:
        api = example.api
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://shop")
        async with api.router.lifespan_context(api), client:
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
            await example.queue.dead_letters().discard()
    finally:
        del sys.modules["fastapi_app"]


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """What a browser does: ask until the job has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
        if answer["status"] in ("SUCCESS", "FAILURE"):
            return answer
    raise AssertionError(f"{job_id} did not end")
