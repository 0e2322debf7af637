"""F41: two releases of streamq at work on one queue, while workers are replaced one by one, there and back.

The next release is made of this one: bytes with fields that this one does not know, at every place where a release may
add some, and scripts with other names. What earlier releases wrote is in tests/broker/golden/, for ever.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

import streamq
from streamq.broker import wire
from tests.faults.arena import QUEUE, Arena
from tests.faults.ledger import ACKED, FAULT, INTENT, START
from tests.worker.waits import until

THIS = Path(streamq.__file__).parent
PROGRAM = Path(__file__).parent / "released.py"
UNKNOWN = "colour"


def field(after: str) -> tuple[str, str]:
    """One more field, after the line that begins so."""
    return f"({after}.*)", f'\\1\n    {UNKNOWN}: str = "red"'


# A field at the end of each array and among the options, all of them written; scripts with other names; history and
# messages with news in them. Regular expressions that are found once each.
CHANGES = {
    "core/job.py": [
        (r"(class JobOptions\(.*), omit_defaults=True", r"\1"),
        field("    headers: dict"),
        field('    worker: str = ""'),  # Failure
        field("    parked_at: int"),  # JobBody
        field(r"    priority: int = 0\n    options: Raw"),  # Record
        field(r"    attempts: int\n    failures: list"),  # DeadLetter
    ],
    "broker/inspector.py": [(r"(class WorkerInfo\(.*), omit_defaults=True", r"\1"), field("    lease: float")],
    "broker/lua/lib/clock.lua": [("-- The server's time in ms", "-- The time of the server in ms")],
    "broker/lua/lib/note.lua": [(r"\{ 'b', (cmsgpack.pack\(noted\)) \}", rf"{{ 'z', '{UNKNOWN}', 'b', \1 }}")],
    "broker/lua/turn.lua": [
        (r"(  if released then redis.call)", rf"  redis.call('PUBLISH', bell, '{UNKNOWN} red')\n\1")
    ],
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of this release and of the next one."""
    following = tmp_path_factory.mktemp("next")
    shutil.copytree(THIS, following / "streamq")
    for name, changes in CHANGES.items():
        path = following / "streamq" / name
        text = path.read_text()
        for old, new in changes:
            text, times = re.subn(old, new, text)
            assert times == 1, (name, old)
        path.write_text(text)
    return {"this": THIS.parent, "next": following}


class Fleet:
    """Programs of two releases, on one namespace."""

    def __init__(self, arena: Arena, releases: dict[str, Path]) -> None:
        self.arena, self.releases = arena, releases
        self.programs: list[Process] = []

    async def run(self, release: str, mode: str, *more: str) -> Process:
        """Start one, which writes a ledger of its own."""
        folder = str(self.releases[release])
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), folder, mode, self.arena.url, self.arena.namespace, str(self.arena.folder)),
            *more,
            env={**os.environ, "PYTHONPATH": folder},
            stderr=PIPE,
        )
        self.programs.append(program)
        return program

    async def worker(self, release: str) -> Process:
        """Start one that works, and wait until it does."""
        program = await self.run(release, "work")
        up = self.arena.folder / f"{program.pid}.up"
        await until(lambda: up.exists() or program.returncode is not None, 20)
        assert program.returncode is None, await said(program)
        return program

    async def kill(self, program: Process) -> None:
        program.kill()
        await program.wait()
        self.arena.ledger.note(FAULT, f"kill-{program.pid}")

    async def end(self) -> None:
        for program in self.programs:
            if program.returncode is None:
                program.kill()
            await program.communicate()


async def said(program: Process) -> str:
    """What it wrote to stderr until its end."""
    return (await program.communicate())[1].decode()


async def succeeded(program: Process) -> None:
    words = await said(program)
    assert program.returncode == 0, words


@pytest.fixture
async def fleet(arena: Arena, releases: dict[str, Path]) -> AsyncIterator[Fleet]:
    fleet = Fleet(arena, releases)
    yield fleet
    await fleet.end()


async def test_f41_a_rolling_deploy_there_and_back(arena: Arena, fleet: Fleet) -> None:
    alive = [await fleet.worker("this"), await fleet.worker("this")]
    producers = [await fleet.run(release, "produce", release, "100000") for release in ("this", "next")]
    for step, release in enumerate(["next", "next", "this", "this"]):
        await arena.seen(START, len(arena.entries(START)) + 20)
        old = alive.pop(0)
        if step % 2:
            await fleet.kill(old)
        else:
            old.send_signal(signal.SIGTERM)
            await succeeded(old)
        alive.append(await fleet.worker(release))
    (arena.folder / "enough").touch()
    for producer in producers:
        await succeeded(producer)
    await arena.settled()
    for worker in alive:
        worker.send_signal(signal.SIGTERM)
        await succeeded(worker)
    verdict = await arena.verdict()
    verdict.assert_base(done=len(arena.entries(INTENT)))
    ran_by = {program.pid for program in fleet.programs} & {entry.pid for entry in arena.entries(START)}
    assert len(ran_by) == 6  # each of the workers, of both releases
    arena.measured(
        "slowest job, from SIGKILL in the middle of a deploy to its next start", max(verdict.recovery.values())
    )
    # Each release reads what the other one recorded.
    results = arena.folder / "results"
    results.write_text("".join(f"{entry.key} {entry.job_id}\n" for entry in arena.entries(ACKED)))
    for reader in [await fleet.run(release, "read", str(results)) for release in ("this", "next")]:
        await succeeded(reader)


async def test_f41_an_unknown_field_survives_a_retry_by_an_older_worker(arena: Arena, fleet: Fleet) -> None:
    k = arena.app(direct=True).broker.keys(QUEUE)
    await succeeded(await fleet.run("next", "produce", "n", "2"))  # the second one is retried
    worker = await fleet.worker("this")
    await arena.seen(START, 2, key="n1")  # the body was written by the older release at least once
    bodies = cast("list[bytes]", arena.client.hvals(k.body)) + [
        fields[b"j"] for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", arena.client.xrange(k.stream(0)))
    ]
    found = [msgspec.msgpack.decode(wire.decode_job(body, 1 << 20).options) for body in bodies]
    assert found == [{**found[0], UNKNOWN: "red", "headers": {"by": "n"}}]
    await arena.settled()
    worker.send_signal(signal.SIGTERM)
    await succeeded(worker)
    (await arena.verdict()).assert_base(done=2)
