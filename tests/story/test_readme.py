"""The README is true: its commands, its code and its links."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from streamq import Context, Reject, Retry, Snooze, State, gather

if TYPE_CHECKING:
    from tests.conftest import MakeApp

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WAIT = 10.0  # seconds; only a failing test ever waits that long

COMMANDS = """\
python3 -m venv .venv && .venv/bin/pip install -q -e '.[embedded]' && .venv/bin/streamq demo
python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest
"""


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in their order; an unnamed one belongs to the shell."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [code for said, code in fenced if said == language]


def test_two_commands_are_all_it_takes() -> None:
    assert blocks("") == [COMMANDS]


def test_ten_lines_print_five(tmp_path: Path) -> None:
    script = tmp_path / "ten_lines.py"
    script.write_text(blocks("python")[0])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**kept, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links, "the README links to the other pages"
    assert [link for link in links if not (ROOT / link).exists()] == []


@dataclass
class Http:
    """Answers like a web server that is busy at first."""

    asked: list[str] = field(default_factory=list[str])

    async def get(self, url: str) -> SimpleNamespace:
        self.asked.append(url)
        busy = self.asked.count(url) == 1
        return SimpleNamespace(status_code=429 if busy else 200, content=b"hello")


@dataclass
class Shop:
    http: Http


async def test_what_a_task_can_say(app: MakeApp) -> None:
    """The second block for real: the same source, with short waits."""
    http = Http()

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Shop, None]:
        yield Shop(http)

    shop = app(lifespan=lifespan)

    @shop.task
    async def add(x: int, y: int) -> int:
        return x + y

    definitions, _, calls = blocks("python")[1].partition("await fetch.using")
    names: dict[str, Any] = {"__name__": "readme", "app": shop, "Context": Context, "State": Shop, "Retry": Retry}
    exec(compile(definitions.replace("countdown=5", "countdown=0.02"), "README.md", "exec", dont_inherit=True), names)
    statements = "async def main(url):\n    job = await fetch.using" + calls.replace("\n", "\n    ").replace(
        "\n    await app", "\n    jobs = await app"
    )
    names["add"] = add
    exec(statements.replace("10m", "0.02s").replace("10_000", "100") + "\n    return job, jobs\n", names)

    async with shop, shop.worker():
        job, jobs = await names["main"]("https://example.org")
        assert await job.result(timeout=WAIT) == 5
        assert (await job.info()).retries == 1
        assert (job.queue, job.task.rpartition(".")[2]) == ("io", "fetch")
        assert await gather(*jobs, timeout=WAIT) == [2 * i for i in range(100)]
        again, _ = await names["main"]("https://example.org")
        assert again.id == job.id
        assert again.deduplicated
    assert http.asked == ["https://example.org"] * 2
    assert sorted(name.rpartition(".")[2] for name in shop.timetable) == ["heartbeat", "nightly"]


async def test_a_snooze_and_a_rejection_as_the_readme_says(app: MakeApp) -> None:
    shop = app()
    woken = asyncio.Event()

    @shop.task
    async def sleepy(ctx: Context[None]) -> int:
        if not woken.is_set():
            woken.set()
            raise Snooze("20ms")
        return ctx.attempt

    @shop.task
    async def hopeless() -> None:
        raise Reject("gone")

    async with shop, shop.worker():
        assert await (await sleepy.enqueue()).result(timeout=WAIT) == 1
        job = await hopeless.enqueue()
        await job.result(timeout=WAIT, raises=False)
        assert await job.status() is State.FAILURE
        assert await shop.dead_letters().discard(job.id) == 1
