"""What is not a job, what is too large, and too much at once. F28 to F30.

Elsewhere: F28 each kind of bytes tests/broker/test_wire.py, in a worker tests/worker/test_misfits.py; F29 for results
tests/worker/test_worker.py; F30 how many one call moves tests/conformance/test_time.py; F41
tests/broker/test_wire.py (golden files, options of a newer release survive a retry).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from streamq import PayloadTooLarge
from streamq.broker.history import History, TransitionKind
from tests.conftest import PROGRAMS
from tests.faults.arena import QUEUE, Arena
from tests.faults.ledger import INTENT
from tests.worker.waits import until

KINDS = [pytest.param({"kind": kind}, id=kind) for kind in PROGRAMS]
LIMIT = 1 << 20
NILS = 50_000_000


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
        # It had the bytes in its hands, and has let go of them: nothing was decoded, and nothing stays.
        assert resident(hand.pid) - before < 2 * LIMIT + 8_000_000
        assert await crew.stop() == [0]
    verdict = await arena.verdict()
    verdict.assert_base(done=5 * rubbish, but=["phantom"])
    assert len(verdict.phantom) == rubbish


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


@pytest.mark.parametrize("many", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_f30_all_are_due_at_once(arena: Arena, many: int) -> None:
    app = arena.app(direct=True)
    keys = [f"d{n}" for n in range(many)]
    arena.ledger.note_all(INTENT, [(key, "-") for key in keys])
    async with app, app.worker(concurrency=200):
        work, k = app.tasks["work"], app.broker.keys(QUEUE)
        await app.enqueue_many(work.s(key).using(countdown="1h") for key in keys)
        # An hour goes by for all of them, behind the back of streamq.
        waiting = cast("list[bytes]", arena.client.zrange(k.due, 0, -1))
        for first in range(0, many, 1_000):
            arena.client.zadd(k.due, dict.fromkeys(waiting[first : first + 1_000], 1))
        arena.client.publish(k.bell, "due 0")
        await arena.settled(within=120)
        promoted = [t.job_id async for t in History(app.broker).backward(QUEUE) if t.kind is TransitionKind.DUE]
    (await arena.verdict()).assert_base(done=many)
    assert len(promoted) == len(set(promoted)) == many
