"""Supervised worker processes of a test, and the application that they run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from streamq.worker.parent import Spec
from streamq.worker.supervisor import Supervisor
from tests.worker import waits

PROJECT = Path(__file__).parents[2]
until = partial(waits.until, within=20.0)  # processes start in a second, and on a busy machine in five

JOBS = """
import asyncio, os, time
from pathlib import Path
from streamq import StreamQ

VERSION = 1
HERE = Path(os.environ["LEDGER"]).parent
app = StreamQ(lease="1s")

def note(*words):
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(" ".join(map(str, words)) + "\\n")

note("UP", os.getpid())

@app.task(name="brief")
async def brief(number: int) -> int:
    note("START", number, os.getpid())
    await asyncio.sleep(0.02)
    note("END", number)
    return number

@app.task(name="hold")
async def hold() -> int:
    note("HOLD", os.getpid())
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)  # here it waits
    return VERSION

@app.task(name="block")
async def block() -> None:
    note("BLOCK", os.getpid())
    while not (HERE / "go").exists():
        time.sleep(0.01)  # here it blocks

@app.task(name="plain")
def plain() -> None:
    note("PLAIN", os.getpid())
    while not (HERE / "go").exists():
        time.sleep(0.01)  # here a thread waits

@app.task(name="version")
async def version() -> int:
    return VERSION

@app.task(name="pid")
async def pid() -> int:
    return os.getpid()

kept = []

@app.task(name="grow")
async def grow() -> int:
    kept.append(b"x" * 200_000_000)
    return os.getpid()
"""
CRASHING = (
    JOBS
    + """
@app.on("worker.started")
def crash(event) -> None:
    asyncio.get_running_loop().call_later(0.3, os._exit, 7)
"""
)


class Ledger:
    """What the processes wrote down, a line an event: `START 3 4711`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger"

    def of(self, word: str) -> list[list[str]]:
        """The other words of each line that begins so."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == word]


def write_jobs(folder: Path, text: str = JOBS) -> None:
    """The module `shop`; one that is written again is read again, however short the time between."""
    (folder / "shop.py").write_text(text)


def environment(folder: Path, url: str, namespace: str, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMQ_", "NOTIFY_"))}
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(folder)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder),
        "LEDGER": str(folder / "ledger"),
        "STREAMQ_URL": url,
        "STREAMQ_NAMESPACE": namespace,
        **more,
    }


@asynccontextmanager
async def supervised(
    folder: Path,
    url: str,
    namespace: str,
    processes: int,
    *,
    margin: float = 10.0,
    codes: list[int] | None = None,
    **spec: Any,
) -> AsyncIterator[Supervisor]:
    """A supervisor in this process, over real ones; when the block begins, all of them are ready.

    Its exit code is added to `codes`.
    """
    worker = {"concurrency": 5, "grace": "10s", **spec.pop("worker", {})}
    supervisor = Supervisor(
        Spec("shop:app", worker, **spec),
        processes,
        command=[sys.executable, "-m", "streamq", "worker", "shop:app"],
        environ=environment(folder, url, namespace),
        margin=margin,
    )
    running = asyncio.create_task(supervisor.run())
    try:
        await until(lambda: running.done() or serving(supervisor) == processes)
        assert not running.done() or running.result() == 0  # a burst may be over
        yield supervisor
    finally:
        supervisor.cancel()
        async with asyncio.timeout(20):
            code = await running
        if codes is not None:
            codes.append(code)


def serving(supervisor: Supervisor) -> int:
    """How many places somebody works at."""
    return sum(place.ready for place in supervisor.places)


def pids(supervisor: Supervisor) -> list[int]:
    return [place.child.pid for place in supervisor.places if place.child is not None]
