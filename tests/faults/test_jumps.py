"""F34: the server's own clock is set, by more than a lease, while jobs run and others wait for their time.

libfaketime stands before a real server and tells it another time; its monotonic clock goes on, as in reality.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streamq import StreamQ, current
from tests.faults.arena import QUEUE, Arena
from tests.faults.ledger import COMMIT, INTENT, START, attempt, ledger_of
from tests.faults.servers import Server
from tests.faults.tasks import LEASE, application
from tests.faults.test_processes import load
from tests.faults.test_server import more

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
PERIOD = 0.2
CYCLES = 3  # of a jump and one back
EARLY = 2  # ms; the server counts in whole ones
LAG = 300_000_000  # ns from a job's delivery to its start, on a busy machine

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed: apt-get install libfaketime")


class Jump(NamedTuple):
    """When it was (ns), as narrowly as it is known, and since then by how many seconds the clock is ahead."""

    since: int
    until: int
    ahead: int


class Shifted(Server):
    """A server whose clock can be set. It is Valkey: libfaketime does not get along with the allocator of Debian's
    Redis."""

    def __init__(self) -> None:
        super().__init__("embedded")
        self._clock = self.folder / "clock"
        self._write(0)
        told = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._command = ["/usr/bin/env", *(f"{name}={value}" for name, value in told.items()), *self._command]

    def _write(self, seconds: int) -> None:
        new = self.folder / "clock.new"
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self._clock)

    def set(self, seconds: int) -> Jump:
        """Let its clock be so many seconds ahead of ours."""
        since = time.time_ns()
        self._write(seconds)
        with self.client() as client:
            now = client.time()[0]
        assert abs(now - time.time() - seconds) < 5
        return Jump(since, time.time_ns(), seconds)


@pytest.fixture
def redis_server() -> Iterator[Shifted]:
    server = Shifted()
    with server:
        yield server


def clockwork(url: str, namespace: str, folder: Path, **settings: Any) -> StreamQ[Any]:
    """With a schedule that makes up for one occurrence at most: after a jump there are thousands."""
    app = application(url, namespace, folder, **settings)
    ledger = ledger_of(folder)

    @app.every(PERIOD, name="tick", catch_up="last")
    @app.task(name="tick")
    async def tick() -> None:
        ctx = current()
        assert ctx is not None
        with attempt(ledger, ctx.job_id):
            pass

    return app


@pytest.mark.parametrize("seconds", [600, -600])
async def test_f34_the_server_s_clock_is_set(arena: Arena, redis_server: Shifted, seconds: int) -> None:
    kept = {"result_ttl": "1h"}  # longer than the jump
    app, jumps, took = arena.app(direct=True, **kept), [Jump(0, 0, 0)], list[float]()
    async with app, arena.crew(build=clockwork, concurrency=64, settings=kept) as crew:
        for _ in range(2):
            await crew.start()
        await arena.enqueue_many(app, "hold", [f"h{n}" for n in range(10)])
        await arena.seen(START, 10)
        async with load(arena, app, pause=0.01):
            for n in range(10):
                await arena.enqueue(app, "work", f"d{n}", countdown=1.5)
            await more(arena, 50)
            for turn, ahead in enumerate([seconds, 0] * CYCLES):
                begun = len(arena.entries(START))
                for n in range(12):  # of every length: some end before they hear of their lost lease
                    keys = [f"b{turn}-{n}-{m}" for m in range(4)]
                    await arena.enqueue_many(app, "work", keys, 0.03 * n)
                await arena.seen(START, begun + 20)
                jumps.append(redis_server.set(ahead))
                await more(arena, 1)
                took.append(arena.next_after(jumps[-1].since, COMMIT))
                await asyncio.sleep(LEASE / 4)  # so long a sweep takes to come by
            await asyncio.sleep(2 * LEASE)  # leases would run out now
            (arena.folder / "go").touch()
        # Whoever slept until the next due time looks every ten seconds. Somebody may tell it, too.
        arena.client.publish(app.broker.keys(QUEUE).bell, "due 0")
        await arena.settled()
        assert await crew.stop() == [0, 0]
    verdict = await arena.verdict()
    verdict.assert_base(but=["phantom"])  # nobody asked for the schedule's jobs
    # To the server a forward jump looks as if everybody had been silent for ten minutes.
    forward = [after for after, earlier in zip(jumps[1:], jumps, strict=False) if after.ahead > earlier.ahead]
    last = {entry.job_id: entry.at for entry in arena.entries(START)}
    first = {entry.job_id: entry.at for entry in reversed(arena.entries(START))}
    lost = {each: sum(first[each] - LAG < jump.until and jump.since < last[each] for jump in forward) for each in last}
    assert [job_id for job_id, starts in verdict.starts.items() if starts > 1 + lost.get(job_id, 0)] == []
    again = sum(starts > 1 for starts in verdict.starts.values())
    arena.measured(f"{CYCLES} jumps of {seconds:+d} s and back: jobs that began again", again, "")
    arena.measured(f"{CYCLES} jumps of {seconds:+d} s and back: slowest until the next recorded end", max(took))
    assert_none_early(arena, jumps)


def assert_none_early(arena: Arena, jumps: list[Jump]) -> None:
    """By the clock of the server as it was at each moment."""

    def told(at: int) -> float:
        """What the server's clock said, in ms, at most: what it decides is seen within a second."""
        ends = [*(jump.until for jump in jumps[1:]), at + 1]
        ahead = [jump.ahead for jump, end in zip(jumps, ends, strict=True) if jump.since <= at and end > at - 1e9]
        return at / 1e6 + 1000 * max(ahead)

    asked = {entry.key: entry.at for entry in arena.entries(INTENT)}
    begun: dict[str, int] = {}
    for entry in arena.entries(START):
        begun.setdefault(entry.key, entry.at)
    delayed = [key for key in asked if key.startswith("d")]
    assert len(delayed) == 10
    assert [key for key in delayed if told(begun[key]) < asked[key] / 1e6 + 1500 - EARLY] == []
    ticks = {key: int(key.rpartition("-")[2]) for key in begun if key.startswith("cron-")}
    assert len(ticks) > 1
    assert [key for key, due in ticks.items() if told(begun[key]) < due - EARLY] == []
