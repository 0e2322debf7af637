"""The harness itself: the proxy does what it says, the checker finds what is wrong, a seed brings a failure back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as Broken

from streamq import State
from streamq.broker.connect import Connections
from tests.faults.checker import Evidence, judge
from tests.faults.ledger import ABORT, ACKED, COMMIT, END, FAULT, INTENT, START, Entry
from tests.faults.proxy import (
    BLACKHOLE,
    KILL,
    KILL_UNSENT,
    LOSE_REPLIES,
    LOSE_REQUESTS,
    TRUNCATE,
    Fault,
    FaultProxy,
    delay,
    frame_end,
    reset,
)
from tests.faults.servers import Server
from tests.worker.crews import PROJECT

# ---- the proxy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"+OK\r\n",
        b":7\r\n",
        b"-ERR no\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"$3\r\na\r\n\r\n",
        b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
    ],
)
def test_a_frame_ends_where_it_ends(data: bytes) -> None:
    assert frame_end(bytearray(data + b"+more\r\n"), 0) == len(data)
    assert [frame_end(bytearray(data[:cut]), 0) for cut in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
async def test_it_passes_everything_on(redis_server: Server, dice: random.Random, tmp_path: Path, tcp: bool) -> None:
    async with FaultProxy(redis_server.url, dice, socket_path=None if tcp else redis_server.folder / "p") as proxy:
        connections = Connections(proxy.url)
        line = connections.line()
        blob = dice.randbytes(1_000_000)
        assert await line.call("SET", "blob", blob) == b"OK"
        assert await line.call("GET", "blob") == blob
        assert await asyncio.gather(*(line.call("ECHO", n) for n in range(50))) == [b"%d" % n for n in range(50)]
        await connections.close()


@pytest.mark.parametrize(
    ("fault", "says", "carried_out", "ends"),
    [
        (KILL, "closed", True, True),
        (KILL_UNSENT, "closed", False, True),
        (TRUNCATE, "closed", True, True),
        (reset(3), "closed", True, True),
        (LOSE_REQUESTS, "no reply", False, False),
        (LOSE_REPLIES, "no reply", True, False),
        (BLACKHOLE, "no reply", False, False),
        (delay(0.3, 0.4), "no reply", True, False),
    ],
    ids=lambda value: value.kind.name if isinstance(value, Fault) else "",
)
async def test_each_fault(
    redis_server: Server, dice: random.Random, fault: Fault, says: str, carried_out: bool, ends: bool
) -> None:
    async with FaultProxy(redis_server.url, dice) as proxy:
        rule = proxy.inflict(fault, on=(b"INCR",), times=1)
        connections = Connections(proxy.url)
        line, other = connections.line(), connections.line()
        assert await line.call("PING") == b"PONG"
        assert await other.call("PING") == b"PONG"
        with pytest.raises(Exception, match=says):
            await line.call("INCR", "n", timeout=0.2)
        assert rule.hits == 1
        await asyncio.sleep(0.3 if fault.kind is delay(0, 0).kind else 0)  # the delayed one arrives
        assert await other.call("GET", "n") == (b"1" if carried_out else None)
        assert await line.call("INCR", "n") == 1 + carried_out  # a new connection
        assert (line.connected, other.connected) == (2, 1)
        await connections.close()


async def test_one_connection_or_all(redis_server: Server, dice: random.Random) -> None:
    async with FaultProxy(redis_server.url, dice) as proxy:
        connections = Connections(proxy.url)
        one, two = connections.line(), connections.line()
        assert await one.call("ECHO", "one") == b"one"
        assert await two.call("ECHO", "two") == b"two"
        (wire,) = (each for each in proxy.wires if any(b"one" in request for request in each.sent))
        proxy.inflict(KILL, wire=wire, times=1)
        assert await two.call("PING") == b"PONG"
        with pytest.raises(Broken):
            await one.call("PING")
        assert await one.call("PING") == b"PONG"
        proxy.cut_all()
        for line in (one, two):
            with contextlib.suppress(Broken):  # or it has noticed before
                await line.call("PING")
            assert await line.call("PING") == b"PONG"
        assert (one.connected, two.connected) == (3, 2)
        await connections.close()


async def test_a_seed_gives_the_same_faults(redis_server: Server) -> None:
    async def outcomes() -> list[bool]:
        async with FaultProxy(redis_server.url, random.Random(7)) as proxy:
            proxy.inflict(KILL, on=(b"ECHO",), share=0.3)
            connections = Connections(proxy.url)
            line, found = connections.line(), list[bool]()
            for _ in range(30):
                try:
                    await line.call("ECHO", "x")
                    found.append(True)
                except Broken:
                    found.append(False)
            await connections.close()
            return found

    first = await outcomes()
    assert {True, False} == set(first)
    assert await outcomes() == first


# ---- the checker ----------------------------------------------------------------------------------------------


def book(*lines: str) -> list[Entry]:
    """`event key id attempt pid`, a ms apart."""
    rows = [line.split() for line in lines]
    return [Entry(row[0], row[1], row[2], int(row[3]), n * 1_000_000, int(row[4])) for n, row in enumerate(rows)]


SOUND = (
    f"{INTENT} a - 0 1",
    f"{ACKED} a A 0 1",
    f"{START} a A 1 2",
    f"{FAULT} kill-2 - 0 1",
    f"{START} a A 2 3",
    f"{END} a A 2 3",
    f"{COMMIT} - A 0 3",
)


def seen(*lines: str, states: dict[str, State] | None = None, ends: int = 1, lost: int = 1) -> Evidence:
    found = {"A": State.SUCCESS} if states is None else states
    return Evidence(book(*lines), found, Counter({"A": ends}), Counter({"A": lost}))


def test_a_sound_run() -> None:
    verdict = judge(seen(*SOUND))
    verdict.assert_base(done=1)
    assert verdict.recovery == {"A": 0.001}
    assert verdict.starts == {"A": 2}


@pytest.mark.parametrize(
    ("broken", "evidence"),
    [
        ("lost", seen(*SOUND, states={})),
        ("lost", seen(*SOUND, states={"A": State.STARTED})),
        ("phantom", seen(*SOUND, states={"A": State.SUCCESS, "X": State.SUCCESS})),
        ("phantom", seen(*SOUND[1:])),
        ("twins", seen(*SOUND, f"{START} a B 1 3", f"{END} a B 1 3")),
        ("twice", seen(*SOUND, ends=2)),
        ("twice", seen(*SOUND, f"{COMMIT} - A 0 4")),
        ("overstarted", seen(*SOUND, lost=0)),
        ("overlapping", seen(*SOUND[:3], *SOUND[4:], lost=0)),
        ("stale", Evidence(stale=["A"])),
        ("left", Evidence(left=["sq:{x}:jobs"])),
    ],
)
def test_what_is_wrong_is_found(broken: str, evidence: Evidence) -> None:
    verdict = judge(evidence)
    assert broken in verdict.broken()
    with pytest.raises(AssertionError, match=broken):
        verdict.assert_base()
    assert broken not in judge(seen(*SOUND)).broken()


def test_one_that_lost_its_lease_may_overlap_and_one_that_ended_does_not() -> None:
    zombie = (*SOUND[:3], f"{START} a A 2 3", f"{ABORT} a A 1 2", f"{END} a A 2 3")
    assert judge(seen(*zombie)).broken() == {}
    assert "overlapping" in judge(seen(*zombie, lost=0)).broken()
    assert judge(seen(*SOUND[:3], f"{ABORT} a A 1 2", *SOUND[4:], lost=0)).overlapping == []


# ---- the seed -------------------------------------------------------------------------------------------------

FAILING = """
from tests.faults.seeds import *
def test_it(dice): assert dice.random() < 0, dice.randbytes(8).hex()
"""


async def test_a_failure_prints_its_seed_and_comes_back_with_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.faults.seeds import dice, pytest_runtest_makereport\n")
    (tmp_path / "test_luck.py").write_text(FAILING)

    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}

    async def run(seed: str) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                str(tmp_path),
                str(tmp_path),
            ),
            env={**os.environ, "PYTHONPATH": str(PROJECT), "STREAMQ_FAULT_SEED": seed, **alone},
            cwd=tmp_path,
            stdout=PIPE,
            stderr=STDOUT,
        )
        text = (await process.communicate())[0].decode()
        printed, drawn = re.search(r"STREAMQ_FAULT_SEED=(\S+) pytest", text), re.search(r"Error: (\w{16})", text)
        assert printed is not None, text
        assert drawn is not None, text
        return printed[1], drawn[1]

    seed, drawn = await run("")
    assert await run(seed) == (seed, drawn)
