"""`streamq timeline` and `streamq events`: what happened, in a pipe, on a terminal, as JSON, and as it happens."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streamq import StreamQ, TransitionKind
from streamq.broker.broker import NewJob
from streamq.cli.commands.events import KINDS
from tests.cli.conftest import PROJECT, Start
from tests.cli.keyboard import Keyboard, Terminal
from tests.client.byhand import Hand
from tests.worker.processes import Redis

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def typed(
    url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keyboard:
    return Keyboard(url, namespace, tmp_path, monkeypatch, capsys)


@pytest.fixture
def terminal(tmp_path: Path, url: str, namespace: str) -> Iterator[Terminal]:
    with closing(Terminal(url, namespace, tmp_path)) as terminal:
        yield terminal


async def seed(app: StreamQ[Any]) -> None:
    """`a` is done, `b` became a dead letter, `c` of another queue is given back."""
    hand, more = Hand(app), Hand(app, "more")
    for job_id in ("a", "b"):
        await app.send_task("mail.send", (1,), job_id=job_id)
        (delivery,) = await hand.take()
        await (hand.succeed(delivery) if job_id == "a" else hand.bury(delivery))
    await app.send_task("mail.copy", (1,), job_id="c", queue="more", priority=2)
    await more.take()
    await app.broker.leave("more", "hand")


# ---- timeline -------------------------------------------------------------------------------------------------------


def test_a_timeline_in_a_pipe(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("timeline", "c")
    assert ended.code == 0
    assert [row[1:-1] for row in ended.rows] == [
        ["enqueued", "", "", ""],
        ["started", "hand", "1", "1"],
        ["released", "hand", "1", "1"],
    ]
    assert ended.rows[0][-1] == "into more, priority 2"
    assert ended.rows[2][-1] == "hand shut down, and gave it back before it started"
    assert all(TIME.fullmatch(row[0]) for row in ended.rows)
    assert ended.err == ""


def test_its_notes_are_no_data(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("timeline", "a", "--queue", "default")
    assert [row[1] for row in ended.rows] == ["enqueued", "started", "succeeded"]
    assert ended.err.startswith("note: a worker took it once.")


def test_a_timeline_as_json(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    told = typed("timeline", "c", "--json").json
    assert {**told, "steps": len(told["steps"])} == {
        "id": "c", "queue": "more", "task": "mail.copy", "state": "QUEUED", "starts": 1, "steps": 3, "notes": [],
    }  # fmt: skip
    assert {**told["steps"][1], "at": "", "why": ""} == {
        "at": "", "what": "started", "worker": "hand", "attempt": 1, "fence": 1, "why": "",
    }  # fmt: skip
    lines = typed("timeline", "a", "--jsonl").jsonl
    assert [each["what"] for each in lines][-1] == "note"
    assert lines[-1]["why"].startswith("a worker took it once.")


def test_a_timeline_on_a_terminal(typed: Keyboard, terminal: Terminal) -> None:
    typed.meanwhile(seed)
    code, text = terminal("timeline", "c")
    assert code == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert lines[0] == "mail.copy c in more: QUEUED"
    assert lines[1].split() == ["AT", "WHAT", "WORKER", "ATTEMPT", "FENCE"]
    assert lines[2].split()[1:] == ["enqueued", "-", "-", "-"]
    assert lines[3] == "    into more, priority 2"
    assert lines[4].split()[1:] == ["started", "hand", "1", "1"]


def test_a_timeline_of_a_job_that_nothing_can_be_read_of(typed: Keyboard, terminal: Terminal) -> None:
    async def seed(app: StreamQ[Any]) -> None:
        await app.broker.add("default", [NewJob("torn", b"\xc1")])

    typed.meanwhile(seed)
    code, text = terminal("timeline", "torn")
    assert (code, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[:2]) == (
        0, ["job torn in default: QUEUED", "AT  WHAT  WORKER  ATTEMPT  FENCE"],
    )  # fmt: skip


@pytest.mark.parametrize("words", [["timeline", "z"], ["timeline", "a", "-q", "more"]])
def test_a_timeline_of_an_unknown_job(typed: Keyboard, words: list[str]) -> None:
    typed.meanwhile(seed)
    ended = typed(*words)
    assert (ended.code, ended.out) == (4, "")
    assert f"There is no job '{words[1]}'" in ended.err


# ---- events ---------------------------------------------------------------------------------------------------------


def test_the_kinds_are_those_of_transitions() -> None:
    assert list(KINDS) == list(TransitionKind)


def test_the_events_of_all_queues(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("events")
    assert (ended.code, ended.err) == (0, "")
    assert [row[1:] for row in ended.rows] == [
        ["default", "a", "started", "hand", "1", ""],
        ["default", "a", "succeeded", "hand", "1", ""],
        ["default", "b", "started", "hand", "1", ""],
        ["default", "b", "failed", "hand", "1", ""],
        ["more", "c", "started", "hand", "1", ""],
        ["more", "c", "released", "hand", "1", "unstarted"],
    ]
    assert all(TIME.fullmatch(row[0]) for row in ended.rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["more"], ["started", "released"]),
        (["more", "default", "more"], ["started", "succeeded", "started", "failed", "started", "released"]),
        (["--kind", "failed", "--kind", "released"], ["failed", "released"]),
        (["--job", "b"], ["started", "failed"]),
        (["--since", "10m"], ["started", "succeeded", "started", "failed", "started", "released"]),
        (["--since", "0s"], []),
        (["--limit", "2"], ["started", "released"]),
        (["--limit", "1", "--kind", "started", "default"], ["started"]),
        (["--limit", "0"], []),
    ],
)
def test_some_events(typed: Keyboard, words: list[str], expected: list[str]) -> None:
    typed.meanwhile(seed)
    ended = typed("events", *words)
    assert (ended.code, [row[3] for row in ended.rows]) == (0, expected)


def test_events_as_json(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    rows = typed("events", "more", "--json").json
    assert {**rows[1], "at": ""} == {
        "at": "", "queue": "more", "job_id": "c", "kind": "released", "worker": "hand", "fence": 1, "seconds": None,
        "detail": "unstarted", "about": "unstarted",
    }  # fmt: skip
    assert typed("events", "more", "--jsonl").jsonl == rows


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["mor"], 4, "there is no queue 'mor'"),
        (["--kind", "begun"], 2, "begun"),
        (["--since", "soon"], 2, "'soon' is not a duration"),
        (["--follow", "--json"], 2, "--follow --jsonl"),
    ],
)
def test_what_cannot_be_asked(typed: Keyboard, words: list[str], code: int, said: str) -> None:
    typed.meanwhile(seed)
    ended = typed("events", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_nothing_is_remembered(typed: Keyboard) -> None:
    ended = typed("events")
    assert (ended.code, ended.out, ended.err) == (0, "", "nothing that is remembered\n")


# ---- following ------------------------------------------------------------------------------------------------------


def read(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err.strip()  # a line break after the ^C


def test_events_are_followed_until_ctrl_c(typed: Keyboard, start: Start, url: str, namespace: str) -> None:
    typed.meanwhile(seed)
    process = start("events", "--follow", "--limit", "1", "--jsonl", "--url", url, "--namespace", namespace)
    assert [(each["job_id"], each["kind"]) for each in read(process, 1)] == [("c", "released")]

    async def later(app: StreamQ[Any]) -> None:
        await app.send_task("mail.send", (1,), job_id="d")
        await Hand(app).take()

    typed.meanwhile(later)
    assert [(each["job_id"], each["kind"]) for each in read(process, 1)] == [("d", "started")]
    assert interrupted(process) == (130, "", "")


def test_following_survives_an_outage(start: Start, tmp_path: Path) -> None:
    async def run(job_id: str) -> None:
        async with StreamQ(server.url) as app:
            await app.send_task("mail.send", (1,), job_id=job_id)
            await Hand(app).take()

    with Redis() as server:
        server.start()
        asyncio.run(run("a"))
        process = start("events", "default", "--follow", "--jsonl", "--kind", "started", "--url", server.url)
        assert process.stderr is not None
        assert [each["job_id"] for each in read(process, 1)] == ["a"]
        server.kill()
        assert re.match(r"cannot reach Redis: .*; waiting for it\n", process.stderr.readline())
        server.start()
        assert process.stderr.readline() == "Redis answers again\n"
        asyncio.run(run("b"))
        assert [each["job_id"] for each in read(process, 1)] == ["b"]
        assert interrupted(process) == (130, "", "")


def test_followed_in_a_pipe_they_are_text(typed: Keyboard, start: Start, url: str, namespace: str) -> None:
    typed.meanwhile(seed)
    process = start("events", "--follow", "--url", url, "--namespace", namespace)
    assert process.stdout is not None
    rows = [process.stdout.readline().rstrip("\n").split("\t") for _ in range(6)]
    assert [row[2] for row in rows] == ["a", "a", "b", "b", "c", "c"]
    assert interrupted(process) == (130, "", "")


def test_followed_on_a_terminal_they_stand_in_columns(typed: Keyboard, url: str) -> None:
    typed.meanwhile(seed)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamq", "events", "--follow", "--url", url]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while seen.count(b"\n") < 6:
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    os.close(ours)
    assert len({line.index(b" hand ") for line in seen.splitlines()[:6]}) == 1
