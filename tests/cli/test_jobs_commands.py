"""`streamq jobs`: list, show, cancel, retry, over jobs in every state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from streamq import JobNotFound, State, StreamQ
from streamq.broker import wire
from streamq.cli.commands.jobs import STATES, UNFINISHED
from streamq.core.job import FINAL, Progress
from tests.cli.conftest import Start
from tests.cli.keyboard import Keyboard, Terminal, call
from tests.client.byhand import Hand


@pytest.fixture
def typed(
    url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keyboard:
    return Keyboard(url, namespace, tmp_path, monkeypatch, capsys)


async def seed(app: StreamQ[Any]) -> None:
    """Jobs named after their states, in the queues `default` and `slow`."""
    hand = Hand(app)
    for job_id in ("success", "failure", "retry", "running"):
        await app.send_task("mail.send", (1,), {"subject": "hello"}, job_id=job_id, headers={"trace": "7"})
    done, dead, again, held = await hand.take()
    await hand.succeed(done, {"x": 4})
    await hand.bury(dead)
    await hand.postpone(again, State.RETRY)
    await app.broker.set_progress("default", held.job_id, wire.encode_progress(Progress(3, 4, "page")))
    await app.send_task("mail.send", (2,), job_id="queued", priority=5)
    await app.send_task("mail.copy", (3,), job_id="scheduled", countdown="1h")
    await app.send_task("mail.copy", (4,), job_id="slow", queue="slow")
    await app.send_task("pay", (4,), job_id="cancelled")
    await app.job("cancelled", "default").cancel("withdrawn")


def test_the_states_are_those_of_jobs() -> None:
    assert sorted(STATES) == sorted(State)
    assert set(UNFINISHED) == set(State) - FINAL


# ---- list ---------------------------------------------------------------------------------------------------


def test_all_jobs_in_a_pipe(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "list")
    assert (ended.code, ended.err) == (0, "")
    assert [row[:5] for row in ended.rows] == [
        ["retry", "RETRY", "mail.send", "default", "0"],
        ["scheduled", "SCHEDULED", "mail.copy", "default", "0"],
        ["queued", "QUEUED", "mail.send", "default", "0"],
        ["running", "STARTED", "mail.send", "default", "1"],
        ["cancelled", "CANCELLED", "pay", "default", "0"],
        ["failure", "FAILURE", "mail.send", "default", "1"],
        ["success", "SUCCESS", "task", "default", "1"],
        ["slow", "QUEUED", "mail.copy", "slow", "0"],
    ]
    times = {row[0]: row[5] for row in ended.rows}
    assert all(at.endswith("Z") and at[10] == "T" for at in times.values())
    assert times["scheduled"] > times["retry"] > times["queued"]
    assert [row[6:] for row in ended.rows if row[0] in ("running", "failure")] == [
        ["hand", ""], ["w1", "builtins.ValueError: no"],
    ]  # fmt: skip


FILTERS = [
    (("--state", "queued"), ["queued", "slow"]),
    (("--state", "STARTED"), ["running"]),
    (("--state", "RETRY"), ["retry"]),
    (("--state", "SUCCESS"), ["success"]),
    (("--task", "mail.c*"), ["scheduled", "slow"]),
    (("--queue", "slow"), ["slow"]),
    (("-q", "default", "--task", "mail.*", "--state", "SCHEDULED"), ["scheduled"]),
    (("--limit", "2"), ["retry", "scheduled"]),
]


@pytest.mark.parametrize(("words", "found"), FILTERS)
def test_some_jobs(typed: Keyboard, words: tuple[str, ...], found: list[str]) -> None:
    typed.meanwhile(seed)
    assert [row[0] for row in typed("jobs", "list", *words).rows] == found


def test_a_limit_that_was_reached_is_said(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    assert typed("jobs", "list", "--limit", "7").err.startswith("these are the first 7; --limit shows more")
    assert typed("jobs", "list", "--limit", "8").err.startswith("these are the first 8")
    assert typed("jobs", "list", "--limit", "9").err == ""


def test_json_has_every_field(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    rows = typed("jobs", "list", "--json").json
    again = typed("jobs", "list", "--jsonl").jsonl
    assert [(row["id"], list(row)) for row in rows] == [(row["id"], list(row)) for row in again]
    (running,) = (row for row in rows if row["id"] == "running")
    assert running["progress"] == {"done": 3.0, "total": 4.0, "note": "page"}
    assert (running["headers"], running["worker"], running["priority"]) == ({"trace": "7"}, "hand", 0)
    assert running["at"] == running["started_at"]
    (failure,) = (row for row in rows if row["id"] == "failure")
    assert failure["failures"] == [
        {
            "attempt": 1,
            "at": "2025-06-15T15:06:40.000Z",
            "worker": "w1",
            "error": "builtins.ValueError",
            "message": "no",
            "traceback": "Traceback: line 7",
        }
    ]
    assert failure["reason"] == "failed"


def test_no_jobs(typed: Keyboard) -> None:
    ended = typed("jobs", "list")
    assert (ended.code, ended.out, ended.err) == (0, "", "no such jobs\n")
    assert typed("jobs", "list", "--json").out == "[]\n"
    assert typed("jobs", "list", "--jsonl").out == ""


def test_a_misspelt_queue(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "list", "--queue", "defualt", "--task", "a b")
    assert (ended.code, ended.out) == (4, "")
    assert "streamq: there is no queue 'defualt'\n" in ended.err
    assert "cause  it is misspelt: there is default\n" in ended.err
    assert "type   streamq jobs list --queue default --task 'a b'\n" in ended.err


def test_a_queue_that_nothing_was_ever_enqueued_to(typed: Keyboard) -> None:
    ended = typed("jobs", "list", "--queue", "x")
    assert "cause  there is no queue yet" in ended.err
    assert ended.err.endswith("type   streamq enqueue TASK --queue x    its first job makes a queue\n")
    ended = typed("jobs", "list", "--queue", "slow", "--app", "shop:app")  # one that a task names exists
    assert (ended.code, ended.err) == (0, "no such jobs\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--state", "RUNNING"), "'RUNNING' is not one of"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("lst",), "there is list"),
        (("cancel",), "give ids, or --queue, --state and --task"),
        (("cancel", "a", "--task", "b"), "give ids, or --queue, --state and --task"),
        (("cancel", "--state", "SUCCESS"), "'SUCCESS' is not one of"),
        (("retry",), "Missing argument"),
        (("show",), "Missing argument"),
    ],
)
def test_bad_usage(typed: Keyboard, words: tuple[str, ...], said: str) -> None:
    ended = typed("jobs", *words)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize("words", [("list",), ("show", "a"), ("cancel", "a"), ("retry", "a")])
def test_redis_is_down(typed: Keyboard, words: tuple[str, ...]) -> None:
    ended = typed("jobs", *words, "--url", "redis://127.0.0.1:1/0")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("streamq: ")
    assert "Traceback" not in ended.err


# ---- on a terminal ------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path: Path, url: str, namespace: str) -> Iterator[Terminal]:
    with closing(Terminal(url, namespace, tmp_path)) as terminal:
        yield terminal


def test_a_table_on_a_terminal(typed: Keyboard, terminal: Terminal) -> None:
    typed.meanwhile(seed)
    code, text = terminal("jobs", "list", "--queue", "slow")
    assert code == 0
    head, row = text.splitlines()
    assert re.sub(r"\x1b\[\d+m", "", head).split() == [
        "ID",
        "STATE",
        "TASK",
        "QUEUE",
        "ATTEMPTS",
        "AT",
        "WORKER",
        "ERROR",
    ]
    assert row.split()[:5] == ["slow", "QUEUED", "mail.copy", "slow", "0"]


def test_a_person_is_asked(typed: Keyboard, terminal: Terminal) -> None:
    typed.meanwhile(seed)
    code, text = terminal("jobs", "cancel", "--task", "mail.*", "--state", "QUEUED", answer="n\n")
    assert (code, "Cancel 2 jobs? [y/N]" in text) == (130, True)
    assert states(typed)["queued"] == "QUEUED"
    code, text = terminal("jobs", "cancel", "--task", "mail.*", "--state", "QUEUED", answer="y\n")
    assert code == 0
    assert "cancelling  [" in text  # the bar, with its rate
    assert "/s" in text
    assert "cancelled   2" in text
    assert (states(typed)["queued"], states(typed)["slow"]) == ("CANCELLED", "CANCELLED")


def states(typed: Keyboard) -> dict[str, str]:
    return {row["id"]: row["state"] for row in typed("jobs", "list", "--jsonl").jsonl}


# ---- show ---------------------------------------------------------------------------------------------------


def test_one_job(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "show", "failure")
    told = dict(row for row in ended.rows)
    assert (ended.code, ended.err) == (0, "")
    assert {name: told[name] for name in ("id", "state", "task", "queue", "reason", "priority")} == {
        "id": "failure", "state": "FAILURE", "task": "mail.send", "queue": "default", "reason": "failed",
        "priority": "0",
    }  # fmt: skip
    assert told["failure 1"] == "2025-06-15T15:06:40.000Z  w1  builtins.ValueError: no"
    assert "progress" not in told
    assert "line 7" not in ended.out
    assert "Traceback: line 7" in typed("jobs", "show", "failure", "-v").out
    running = dict(typed("jobs", "show", "running", "--queue", "default").rows)
    assert running["headers"] == '{"trace":"7"}'
    assert running["progress"] == '{"done":3.0,"total":4.0,"note":"page"}'


def test_arguments_only_if_asked_for(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    for name in ("queued", "failure", "success"):
        assert "args" not in typed("jobs", "show", name).out
    told = dict(typed("jobs", "show", "retry", "--args").rows)
    assert (told["args"], told["kwargs"]) == ("[1]", '{"subject":"hello"}')
    dead = typed("jobs", "show", "failure", "--args", "--json").json
    assert (dead["args"], dead["kwargs"]) == ([1], {"subject": "hello"})
    assert typed("jobs", "show", "success", "--args", "--json").json["arguments"] == "not kept: the job has ended"


def test_arguments_in_json_and_unreadable_ones(typed: Keyboard) -> None:
    async def work(app: StreamQ[Any]) -> None:
        await app.send_task("a", ("é",), {"x": None}, job_id="json", serializer="json")
        await app.broker.line("commands").call("HSET", app.broker.keys("default").body, "torn", b"\xc1")
        await app.send_task("a", job_id="torn", countdown=60)
        await app.broker.line("commands").call("HSET", app.broker.keys("default").body, "torn", b"\xc1")

    typed.meanwhile(work)
    shown = typed("jobs", "show", "json", "--args", "--json").json
    assert (shown["args"], shown["kwargs"]) == (["é"], {"x": None})
    ended = typed("jobs", "show", "torn", "--args", "--json")
    assert ended.json["arguments"].startswith("cannot be read: not a job")
    assert ended.json["task"] == ""


def test_a_job_that_is_nowhere(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    for words in (("show", "nobody"), ("cancel", "nobody"), ("retry", "nobody"), ("show", "slow", "-q", "default")):
        ended = typed("jobs", *words)
        assert (ended.code, ended.out) == (4, "")
        assert f"There is no job '{words[1]}'" in ended.err


def test_a_dead_letter_is_shown_and_retried_when_its_record_has_expired(typed: Keyboard) -> None:
    async def work(app: StreamQ[Any]) -> None:
        await seed(app)
        await app.broker.line("commands").call("DEL", app.broker.keys("default").records + "failure")

    typed.meanwhile(work)
    assert typed("jobs", "show", "failure", "--json").json["state"] == "FAILURE"
    assert typed("jobs", "retry", "failure").rows == [["failure", "revived"]]


# ---- cancel -------------------------------------------------------------------------------------------------


def test_one_is_cancelled_without_asking(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "cancel", "queued", "--reason", "no longer wanted")
    assert (ended.code, ended.rows) == (0, [["queued", "cancelled"]])
    shown = typed("jobs", "show", "queued", "--json").json
    assert (shown["state"], shown["reason"]) == ("CANCELLED", "no longer wanted")
    assert typed("jobs", "cancel", "running", "--jsonl").jsonl == [{"id": "running", "result": "cancelling"}]
    assert typed("jobs", "show", "running", "--json").json["cancelling"] is True
    assert typed("jobs", "cancel", "success").rows == [["success", "finished"]]


def test_several_need_a_yes_in_a_pipe(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "cancel", "queued", "slow", "--reason", "a b")
    assert (ended.code, ended.out) == (2, "")
    assert "this would cancel 2 jobs" in ended.err
    assert "type   streamq jobs cancel queued slow --reason 'a b' --yes" in ended.err
    ended = typed("jobs", "cancel", "queued", "slow", "nobody", "--yes")
    assert (ended.code, ended.rows) == (4, [["queued", "cancelled"], ["slow", "cancelled"]])
    assert "There is no job 'nobody'" in ended.err


def test_all_that_match(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "cancel", "--task", "mail.*", "--dry-run")
    assert (ended.code, ended.out, ended.err) == (0, "", "would cancel 5 jobs\n")
    ended = typed("jobs", "cancel", "--task", "mail.*", "--yes", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == {"cancelled": 4, "cancelling": 1, "finished": 0}
    assert {state for name, state in states(typed).items() if name not in ("success", "failure", "running")} == {
        "CANCELLED"
    }
    ended = typed("jobs", "cancel", "--queue", "slow")
    assert (ended.code, ended.err) == (0, "nothing to do: would cancel 0 jobs\n")


def test_many_at_once(typed: Keyboard) -> None:
    async def work(app: StreamQ[Any]) -> None:
        await app.enqueue_many(call("task", n) for n in range(250))

    typed.meanwhile(work)
    ended = typed("jobs", "cancel", "--queue", "default", "--yes")
    assert ended.rows == [["cancelled", "250"], ["cancelling", "0"], ["finished", "0"]]


def test_jobs_that_ended_since_they_were_counted(typed: Keyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    typed.meanwhile(seed)

    def meanwhile(*_: Any, **__: Any) -> bool:
        def end() -> None:
            async def work(app: StreamQ[Any]) -> None:
                await app.job("slow", "slow").cancel()
                await app.broker.line("commands").call("DEL", app.broker.keys("slow").records + "slow")
                with pytest.raises(JobNotFound):
                    await app.job("slow", "slow").status()

            typed.meanwhile(work)

        thread = Thread(target=end)
        thread.start()
        thread.join()
        return True

    monkeypatch.setattr("streamq.cli.commands.jobs.go_ahead", meanwhile)
    ended = typed("jobs", "cancel", "--task", "mail.*", "--state", "QUEUED", "--json")
    assert ended.json == {"cancelled": 1, "cancelling": 0, "finished": 1}


# ---- retry --------------------------------------------------------------------------------------------------


def test_what_waits_runs_now_and_a_dead_letter_is_put_back(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "retry", "retry", "scheduled", "failure", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == [
        {"id": "retry", "result": "due"},
        {"id": "scheduled", "result": "due"},
        {"id": "failure", "result": "revived"},
    ]

    async def work(app: StreamQ[Any]) -> set[str]:
        await app.broker.promote("default")
        return {delivery.job_id for delivery in await Hand(app).take()}

    assert typed.meanwhile(work) == {"retry", "scheduled", "failure", "queued"}


@pytest.mark.parametrize(
    ("job_id", "why"),
    [
        ("queued", "queued waits for a worker already."),
        ("running", "running is running: there is nothing to retry yet."),
        ("success", "success ended as SUCCESS: only dead letters can be retried; enqueue the job anew."),
        ("cancelled", "cancelled ended as CANCELLED: only dead letters can be retried; enqueue the job anew."),
    ],
)
def test_what_cannot_be_retried_says_why(typed: Keyboard, job_id: str, why: str) -> None:
    typed.meanwhile(seed)
    ended = typed("jobs", "retry", job_id, "slow")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"streamq: {why}\nstreamq: slow waits for a worker already.\n"


def test_a_discarded_dead_letter_cannot_be_retried(typed: Keyboard) -> None:
    async def work(app: StreamQ[Any]) -> None:
        await seed(app)
        await app.dead_letters().discard("failure")

    typed.meanwhile(work)
    ended = typed("jobs", "retry", "failure", "scheduled")
    assert (ended.code, ended.rows) == (1, [["scheduled", "due"]])
    assert "failure has failed, and its dead letter was discarded" in ended.err


def test_a_reader_that_has_seen_enough(start: Start, typed: Keyboard) -> None:
    """`streamq jobs list | head -1`."""

    async def work(app: StreamQ[Any]) -> None:
        await app.enqueue_many(call("task", n) for n in range(1_000))

    typed.meanwhile(work)
    process = start(
        "jobs", "list", "--limit", "1000", "--json", STREAMQ_URL=typed.url, STREAMQ_NAMESPACE=typed.namespace
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
