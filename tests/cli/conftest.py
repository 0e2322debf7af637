"""`streamq` as its users run it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Command, Worker
from tests.worker.crews import Ledger, environment, write_jobs

PROJECT = Path(__file__).parents[2]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m streamq ...` in an empty folder; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}

    def run(*words: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamq", *words],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the jobs of the module `shop` write down."""
    return Ledger(tmp_path)


@pytest.fixture
def worker(tmp_path: Path, url: str, namespace: str) -> Iterator[Worker]:
    """Start `streamq worker ...` in a folder with the module `shop`; it and its children are killed at the end."""
    started: list[Command] = []
    write_jobs(tmp_path)

    def run(*words: str, under: tuple[str, ...] = (), **environ: str) -> Command:
        started.append(Command(tmp_path, environment(tmp_path, url, namespace, **environ), words, *under))
        return started[-1]

    yield run
    for command in started:
        command.kill()
