"""`streamq top`: the picture as a function, and the whole on a real terminal."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from streamq.broker.inspector import Inspector, QueueInfo, WorkerInfo
from streamq.broker.rates import Rates, rates
from streamq.broker.values import Pause
from streamq.cli.top.screen import Chosen, draw
from streamq.cli.top.views import QueueView, View
from tests.conftest import MakeApp

from .conftest import PROJECT, Start

NOW = 1_750_000_000_000


def queue(name: str, workers: int = 1, dead: int = 0, pause: Pause | None = None) -> QueueView:
    info = QueueInfo(name, 12_345, 3, 7, dead, 75.0, workers, {9: 5, 0: 12_340}, pause)
    return QueueView(info, Rates(10.0, 41.5, 0.5, 200, 0.012, 3.4, 0.2, 90.0))


def shown(view: View, chosen: Chosen, height: int = 40, width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(draw(view, chosen, width, height))
    return console.export_text()


WORKERS = [WorkerInfo("w1", "h", 1, "0.1.0", ["emails"], 100, [], NOW - 60_000, [("j1", "send", NOW - 2_000)])]


def view(*queues: QueueView, problem: str = "") -> View:
    return View("redis://localhost", "7.2.4", "3 MB", NOW, list(queues), WORKERS, 0.01, problem=problem)


def test_queues_and_workers_at_a_glance() -> None:
    text = shown(view(queue("emails", dead=2)), Chosen("emails"))
    row = next(line for line in text.splitlines() if line.strip().startswith("emails"))
    assert row.split() == [
        "emails",
        "12,345",
        "3",
        "7",
        "2",
        "1",
        "min",
        "15",
        "s",
        "42",
        "0.5",
        "12",
        "ms",
        "3.4",
        "s",
        "1",
    ]
    worker = next(line for line in text.splitlines() if line.strip().startswith("w1"))
    assert worker.split() == ["w1", "emails", "1", "100", "1", "min", "2.0", "s"]


def test_an_open_queue_shows_its_running_jobs() -> None:
    text = shown(view(queue("emails", pause=Pause(NOW, "deploy")), queue("other")), Chosen("emails", opened=True))
    assert "j1" in text
    assert "9: 5, 0: 12,340" in text
    assert "since 2025-06-15T15:06:40.000Z: deploy" in text
    assert "other" not in text


def test_a_long_list_of_queues_keeps_the_chosen_one_in_sight() -> None:
    text = shown(view(*(queue(f"q{n:03}") for n in range(100))), Chosen("q077"), height=30)
    assert "q077" in text
    assert "q000" not in text
    assert len(text.splitlines()) <= 30


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal_shows_fewer_columns_and_cuts_no_figure(width: int) -> None:
    text = shown(view(queue("emails")), Chosen(), width=width)
    row = next(line for line in text.splitlines() if line.strip().startswith("emails"))
    assert "12,345" in row
    assert "12 ms" in row
    assert max(map(len, text.splitlines()[2:])) <= width


def test_an_old_picture_says_so() -> None:
    assert "this picture is old: no" in shown(view(queue("emails"), problem="this picture is old: no"), Chosen())


async def test_rates_come_from_the_history(app: MakeApp) -> None:
    shop = app()

    @shop.task(name="nap")
    async def nap(n: int) -> None:
        await asyncio.sleep(0.02)
        if n % 4 == 0:
            raise ValueError(n)

    async with shop, shop.worker(concurrency=10):
        jobs = await shop.enqueue_many(nap.s(n) for n in range(40))
        for job in jobs:
            await job.result(timeout=10, raises=False)
        found = await rates(shop.broker, "default")
        assert found.ended is not None
        assert found.failed is not None
        assert (round(found.ended * found.window), round(found.failed * found.window), found.sample) == (40, 10, 40)
        assert found.run_p50 is not None
        assert found.run_p95 is not None
        assert 0.015 <= found.run_p50 <= found.run_p95 < 5
        await shop.dead_letters().discard()


async def test_without_a_history_there_are_no_rates(app: MakeApp) -> None:
    shop = app(events=0)
    await shop.open()
    assert await rates(shop.broker, "default") == Rates()


# ---- the command -----------------------------------------------------------------------------------------------


def test_in_a_pipe_it_is_one_picture(start: Start, url: str, namespace: str) -> None:
    process = start("top", "--url", url, STREAMQ_NAMESPACE=namespace)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "no queue was ever used here" in out


def test_json_is_for_scripts(start: Start, url: str, namespace: str) -> None:
    start("enqueue", "shop.add", "--url", url, STREAMQ_NAMESPACE=namespace).communicate(timeout=20)
    out, _ = start("top", "--url", url, "--json", STREAMQ_NAMESPACE=namespace).communicate(timeout=20)
    (row,) = json.loads(out)
    assert (row["queue"], row["queued"], row["workers"], row["paused"]) == ("default", 1, 0, None)


class Terminal:
    """`streamq top` on a pseudo-terminal."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.number, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamq", "top", "--url", url, "--every", "0.1"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(PROJECT),
                "STREAMQ_NAMESPACE": namespace,
                "TERM": "xterm",
                "COLUMNS": "140",
                "LINES": "40",
            },
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self.number, False)
        self.text = ""

    def until(self, words: str) -> None:
        deadline = time.monotonic() + 15
        while words not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            with contextlib.suppress(BlockingIOError, OSError):
                self.text += re.sub(
                    r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(self.number, 65_536).decode(errors="replace")
                )
            time.sleep(0.01)
        self.text = ""

    def press(self, keys: str) -> None:
        os.write(self.number, keys.encode())


@pytest.fixture
def terminal(url: str, namespace: str, tmp_path: Path, start: Start) -> Iterator[Terminal]:
    start("enqueue", "shop.add", "--url", url, STREAMQ_NAMESPACE=namespace).communicate(timeout=20)
    terminal = Terminal(url, namespace, tmp_path)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.number)


async def test_keys_open_and_pause_a_queue(terminal: Terminal, app: MakeApp) -> None:
    shop = app()
    await shop.open()
    inspector = Inspector(shop.broker)
    terminal.until("default")
    terminal.press("p")
    terminal.until("default is paused")
    assert (await inspector.queue("default")).paused is not None
    terminal.press("\r")
    terminal.until("by priority")
    terminal.press("p")
    terminal.until("default goes on")
    assert (await inspector.queue("default")).paused is None
    terminal.press("q")
    assert terminal.process.wait(timeout=10) == 0


def test_ctrl_c_ends_it(terminal: Terminal) -> None:
    terminal.until("default")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(timeout=10) == 130
