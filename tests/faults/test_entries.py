"""What is not a job, what is too large, and too much at once. F28 to F30.

Elsewhere: F28 each kind of bytes tests/broker/test_wire.py, in a worker tests/worker/test_misfits.py; F29 for results
tests/worker/test_worker.py; F30 how many one call moves tests/conformance/test_time.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import msgspec
import pytest

from streamq import JobFailed, PayloadTooLarge, StreamQ
from streamq.broker.history import TransitionKind, decode
from streamq.broker.scripts import SCRIPTS
from tests.conftest import PROGRAMS
from tests.faults.arena import QUEUE, Arena
from tests.faults.ledger import INTENT
from tests.worker.waits import until

KINDS = [pytest.param({"kind": kind}, id=kind) for kind in PROGRAMS]
LIMIT = 1 << 20
NILS = 50_000_000
UNTOUCHED = 8_000_000  # bytes
PROMOTED = 200  # jobs a call, at most
SCRIPT = 0.005  # seconds that one script may take


def garbage(arena: Arena) -> list[dict[Any, Any]]:
    encode = msgspec.msgpack.encode
    bodies = [
        b"",
        b'{"task": "work", "args": ["x"]}',
        arena.dice.randbytes(300),
        b"\x91" * 100_000,  # arrays in arrays
        b"\xdd\xff\xff\xff\xff",  # an array of 4 G
        b"\xdd" + NILS.to_bytes(4) + b"\xc0" * NILS,
        encode([1, 2, 3]),
        encode([99, "work", b"", 0]),
        encode({"version": 1}),
        encode([1, "work", [b"\xff"], "now"]),
    ]
    return [
        *({b"i": b"g%d" % n, b"j": body} for n, body in enumerate(bodies)),
        {b"": b""},
        {b"i": b"no body"},
        {b"j": b"no id"},
        {b"i": b"\xff\xfe", b"j": encode([1])},
        {arena.dice.randbytes(9): arena.dice.randbytes(9)},
    ]


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("redis_server", KINDS, indirect=True)
async def test_f28_garbage_between_jobs(arena: Arena) -> None:
    app = arena.app()
    stream = app.broker.keys(QUEUE).stream(0)
    async with app, arena.crew() as crew:
        hand = await crew.start()
        for n, entry in enumerate([{"x": "x"}, *garbage(arena)]):
            arena.client.xadd(stream, entry)
            await arena.enqueue_many(app, "work", [f"n{n}-{m}" for m in range(5)])
            if n == 0:
                await arena.settled()
                before = resident(hand.pid)
        rubbish = n + 1
        await until(lambda: arena.client.xlen(stream) == 0, 20)
        letters = await app.broker.dead(QUEUE, limit=100)
        assert [letter.reason.value for letter in letters] == ["unreadable"] * rubbish
        assert all(letter.error for letter in letters)
        # It had the bytes in its hands, and lets go of them: nothing was decoded, and nothing stays. What was not
        # touched before, code and buffers, comes on top of it.
        await until(lambda: resident(hand.pid) - before < 2 * LIMIT + UNTOUCHED)
        arena.measured("growth of the worker", (resident(hand.pid) - before) / 1e6, "MB")
        # A task that nobody knows is no garbage: it waits for a worker that does.
        unknown = await app.enqueue("nowhere.task", 1)
        await until(lambda: arena.client.zcard(app.broker.keys(QUEUE).due) == 1)
        assert await unknown.cancel()
        assert await crew.stop() == [0]
    verdict = await arena.verdict()
    verdict.assert_base(done=5 * rubbish, but=["phantom"])
    assert len(verdict.phantom) == rubbish + 1


async def test_f29_ten_megabytes(arena: Arena) -> None:
    small, large = arena.app(), arena.app(max_payload=16 << 20)
    blob = arena.dice.randbytes(10_000_000)
    async with small, large, large.worker(concurrency=4):
        before = arena.client.dbsize()
        with pytest.raises(PayloadTooLarge):
            await small.tasks["echo"].enqueue(blob)
        assert arena.client.dbsize() == before
        jobs = [await large.tasks["echo"].enqueue(blob) for _ in range(4)]
        assert all([await job.result(timeout=20) == blob for job in jobs])
        await arena.settled()


async def test_f29_a_result_of_ten_megabytes(arena: Arena) -> None:
    app = arena.app(max_payload=LIMIT)
    app.task(name="grow")(grow)
    async with app, app.worker(concurrency=4):
        job, beside = await app.tasks["grow"].enqueue(10_000_000), await arena.enqueue(app, "work", "beside")
        with pytest.raises(JobFailed, match="PayloadTooLarge"):
            await job.result(timeout=20)
        assert await beside.result(timeout=20) == "beside"
        assert arena.client.strlen(app.broker.keys(QUEUE).records + job.id) < 10_000
        await arena.settled()


async def grow(size: int) -> bytes:
    return b"x" * size


@dataclass
class Rush:
    """What was seen while many jobs were due at once."""

    seconds: float = 0.0  # until all were promoted
    scripts: dict[str, list[float]] = field(default_factory=dict[str, list[float]])  # seconds of each call
    pings: list[float] = field(default_factory=list[float])
    promoted: list[int] = field(default_factory=list[int])  # by each call


async def rush(arena: Arena, many: int) -> Rush:
    """So many jobs are due at once, and two workers run them."""
    app, seen = arena.app(direct=True), Rush()
    keys, k = [f"d{n}" for n in range(many)], app.broker.keys(QUEUE)

    async def none_is_due() -> bool:
        return not await app.broker.command("ZCARD", k.due)

    arena.ledger.note_all(INTENT, [(key, "-") for key in keys])
    async with app, arena.crew(concurrency=100) as crew:
        for _ in range(2):
            await crew.start()
        work = app.tasks["work"]
        await app.enqueue_many(work.s(key).using(countdown="1h") for key in keys)
        # An hour goes by for all of them, behind the back of streamq.
        waiting = cast("list[bytes]", arena.client.zrange(k.due, 0, -1))
        for first in range(0, many, 1_000):
            arena.client.zadd(k.due, dict.fromkeys(waiting[first : first + 1_000], 1))
        with every_call_logged(arena):
            async with pinged(app, seen.pings):
                began = time.monotonic()
                arena.client.publish(k.bell, "due 0")
                await until(none_is_due, 60)
                seen.seconds = time.monotonic() - began
            seen.scripts = times_of_scripts(arena)
        await arena.settled(within=120)
        assert await crew.stop() == [0, 0]
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", arena.client.xrange(k.ev))
    seen.promoted = [number for _, fields in entries if (number := promoted_by(fields))]
    return seen


@pytest.mark.parametrize("redis_server", [{"slowlog-max-len": "100000", "fsync": "everysec"}], indirect=True)
@pytest.mark.parametrize("many", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_f30_all_are_due_at_once(arena: Arena, many: int) -> None:
    seen = await rush(arena, many)
    verdict = await arena.verdict()
    verdict.assert_base(done=many)
    assert set(verdict.starts.values()) == {1}
    assert sum(seen.promoted) == many  # each once
    assert seen.seconds <= 10.0
    assert seen.pings
    assert max(seen.pings) < 1.0  # whoever else uses the server is answered meanwhile
    arena.measured(f"{many:,} jobs: until all are promoted", seen.seconds)
    arena.measured(f"{many:,} jobs: a concurrent PING, p99", quantile(seen.pings, 0.99))
    arena.measured(f"{many:,} jobs: a promote, the median", median(seen.scripts["promote"]))
    arena.measured(f"{many:,} jobs: a promote, the longest", max(seen.scripts["promote"]))


@pytest.mark.parametrize("redis_server", [{"slowlog-max-len": "100000", "fsync": "everysec"}], indirect=True)
async def test_f30_no_script_holds_the_server_up(arena: Arena) -> None:
    seen = await rush(arena, 5_000)
    assert max(seen.promoted) <= PROMOTED
    assert quantile(seen.pings, 0.25) < 0.02
    # Of the calls of each script those that had a core to themselves: on a busy machine the clock goes on while the
    # server waits for one. What a script does is bounded by the line above.
    assert {name: took for name, times in seen.scripts.items() if (took := quantile(times, 0.1)) > SCRIPT} == {}


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@contextmanager
def every_call_logged(arena: Arena) -> Iterator[None]:
    """In the server's slow log."""
    before = str(arena.client.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"])
    arena.client.config_set("slowlog-log-slower-than", 0)
    arena.client.slowlog_reset()
    yield
    arena.client.config_set("slowlog-log-slower-than", before)


@asynccontextmanager
async def pinged(app: StreamQ[Any], found: list[float]) -> AsyncIterator[None]:
    """Ask the server for a sign of life every 2 ms; how many seconds each took."""
    line = app.broker.connections.line()
    await line.call("PING")

    async def ping() -> None:
        while True:
            began = time.monotonic()
            await line.call("PING")
            found.append(time.monotonic() - began)
            await asyncio.sleep(0.002)

    pinging = asyncio.create_task(ping())
    try:
        yield
    finally:
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)
        await line.close()


def times_of_scripts(arena: Arena) -> dict[str, list[float]]:
    """Seconds that each call of a script took on the server, as its slow log says."""
    names, found = {script.sha: name for name, script in SCRIPTS.items()}, dict[str, list[float]]()
    for each in arena.client.slowlog_get(-1):
        words = each["command"].split(b" ")
        if words[0].upper() == b"EVALSHA" and (name := names.get(words[1].decode())):
            found.setdefault(name, []).append(each["duration"] / 1e6)
    return found


def promoted_by(fields: dict[bytes, bytes]) -> int:
    """How many jobs one entry of the history says were due."""
    flat = [part for pair in fields.items() for part in pair]
    return sum(transition.kind is TransitionKind.DUE for transition in decode(QUEUE, flat))
