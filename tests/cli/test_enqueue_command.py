"""`streamq enqueue` and `streamq result`, and the names that a shell completes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from streamq import JobInfo, State, StreamQ
from streamq.broker.embedded import EmbeddedServer
from streamq.cli.completing import queue_names, task_names
from streamq.cli.main import streamq
from streamq.core.outcome import Complete
from tests.cli.conftest import PROJECT, Start
from tests.cli.keyboard import Keyboard, Terminal
from tests.client.byhand import Hand, record

APP = ("--app", "shop:app")


@pytest.fixture
def typed(
    url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Keyboard]:
    keyboard = Keyboard(url, namespace, tmp_path, monkeypatch, capsys)
    yield keyboard
    keyboard.forget()  # what was imported to complete a name


@pytest.fixture
def terminal(tmp_path: Path, url: str, namespace: str) -> Iterator[Terminal]:
    with closing(Terminal(url, namespace, tmp_path)) as terminal:
        yield terminal


def environ(typed: Keyboard) -> dict[str, str]:
    return {"STREAMQ_URL": typed.url, "STREAMQ_NAMESPACE": typed.namespace}


def info(typed: Keyboard, job_id: str) -> JobInfo:
    async def work(app: StreamQ[Any]) -> JobInfo:
        return await app.job(job_id).info()

    return typed.meanwhile(work)


def arguments(typed: Keyboard, job_id: str) -> tuple[Any, Any]:
    shown = typed("jobs", "show", job_id, "--args", "--json").json
    return shown["args"], shown["kwargs"]


def count(typed: Keyboard, queue: str = "default") -> int:
    async def work(app: StreamQ[Any]) -> int:
        return (await app.queue(queue).info()).queued

    return typed.meanwhile(work)


# ---- one job ------------------------------------------------------------------------------------------------


def test_a_job_by_name(typed: Keyboard) -> None:
    ended = typed("enqueue", "any.name", "42", '"hello"', "[1, null]", "--kw", "html=true", "--kw", 'x={"a": 1.5}')
    assert (ended.code, ended.err) == (0, "")
    (job_id,) = ended.out.splitlines()
    assert arguments(typed, job_id) == ([42, "hello", [1, None]], {"html": True, "x": {"a": 1.5}})
    found = info(typed, job_id)
    assert (found.task, found.queue, found.state) == ("any.name", "default", State.QUEUED)


def test_a_task_of_the_application(typed: Keyboard) -> None:
    ended = typed("enqueue", "mail.copy", "--json", *APP, "--", "-3")
    assert ended.json == {"id": ended.json["id"], "task": "mail.copy", "queue": "slow", "deduplicated": False}
    assert info(typed, ended.json["id"]).priority == 3
    assert arguments(typed, ended.json["id"]) == ([-3], {})


def test_all_options(typed: Keyboard) -> None:
    ended = typed(
        "enqueue", "t", "--queue", "q", "--priority", "7", "--countdown", "10m", "--expires", "2h", "--job-id", "mine",
        "--max-retries", "2", "--header", "trace=a=b", "--header", "x=", "--idempotency-key", "k",
    )  # fmt: skip
    assert ended.out == "mine\n"
    found = info(typed, "mine")
    assert (found.queue, found.priority, found.state) == ("q", 7, State.SCHEDULED)
    assert found.headers == {"trace": "a=b", "x": ""}
    assert found.due is not None
    assert found.enqueued_at is not None
    assert found.expires is not None
    assert 599 <= (found.due - found.enqueued_at).total_seconds() <= 601
    assert (found.expires - found.enqueued_at).total_seconds() == 7200
    again = typed("enqueue", "t", "--queue", "q", "--idempotency-key", "k", "--jsonl")
    assert again.json == {"id": "mine", "task": "t", "queue": "q", "deduplicated": True}


def test_dates(typed: Keyboard) -> None:
    job_id = typed("enqueue", "t", "--eta", "2125-01-02T03:04:05Z", "--expires", "2125-01-03").out.strip()
    found = info(typed, job_id)
    assert found.eta is not None
    assert found.expires is not None
    assert (found.eta.isoformat(), found.expires.isoformat()) == (
        "2125-01-02T03:04:05+00:00", "2125-01-03T00:00:00+00:00",
    )  # fmt: skip


def test_a_misspelt_task(typed: Keyboard) -> None:
    ended = typed("enqueue", "mail.sned", "1", *APP)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        "streamq: there is no task 'mail.sned'\n\n"
        "  where  the application\n"
        "  cause  it is misspelt: there is mail.send\n"
        "  type   streamq enqueue mail.send 1 --app shop:app\n"
    )
    ended = typed("enqueue", "zzzz", *APP)
    assert (ended.code, "there are fail, mail.copy, mail.send" in ended.err) == (4, True)


MISTAKES = [
    ((), 2, "Name a task, or a file of jobs"),
    (("t", "hello"), 2, """type   streamq enqueue t '"hello"'"""),
    (("t", "NaN"), 2, "'NaN' is no JSON"),
    (("t", "--kw", "x=hello"), 2, """type   streamq enqueue t --kw 'x="hello"'"""),
    (("t", "--kw", "x"), 2, "--kw 'x' has no name: write NAME=..."),
    (("t", "--header", "=x"), 2, "--header '=x' has no name: write NAME=..."),
    (("t", "--timeout", "3"), 2, "--timeout says how long to --wait"),
    (("t", "--priority", "10"), 2, "10 is not in the range"),
    (("t", "--countdown", "soon"), 2, "countdown='soon' is not a duration"),
    (("t", "--eta", "soon"), 2, "eta='soon' is not a datetime"),
    (("t", "--eta", "2125-01-01", "--countdown", "3"), 2, "countdown and eta both say when"),
    (("t", "--queue", "a b"), 2, "queue='a b' cannot name a queue"),
    (("t", "--job-id", "a b"), 2, "job_id 'a b' cannot be used"),
    (("t", "9" * 30), 2, "cannot be serialised"),
    (("mail.send", *APP), 2, "missing a required argument: 'to'"),
    (("mail.send", "1", "--kw", "htlm=true", *APP), 2, "htlm"),
    (("t", "--qeue", "q"), 2, "it is misspelt: there is --queue"),
    (("t", "--url", "redis://127.0.0.1:1/0"), 3, "streamq: "),
    (("t", "--app", "shp:app"), 2, "there is no module 'shp'"),
    (("--from-file", "nowhere.jsonl"), 2, "does not exist"),
    (("t", "--from-file", "-"), 2, "--from-file takes no task"),
    (("--wait", "--from-file", "-"), 2, "--from-file takes no task"),
]


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES)
def test_mistakes(typed: Keyboard, words: tuple[str, ...], code: int, said: str) -> None:
    ended = typed("enqueue", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert count(typed) == 0


# ---- waiting ------------------------------------------------------------------------------------------------


@pytest.fixture
def working(typed: Keyboard, start: Start) -> Iterator[None]:
    """A worker of shop:app."""
    process = start("worker", "shop:app", **environ(typed))
    yield
    process.terminate()
    process.communicate(timeout=20)


@pytest.mark.usefixtures("working")
def test_waiting_for_results(typed: Keyboard) -> None:
    ended = typed("enqueue", "mail.send", "7", "--kw", "html=true", "--wait", "--timeout", "20s", *APP)
    assert (ended.code, ended.json) == (0, {"to": 7, "subject": "", "html": True})
    job_id = ended.err.split()[0]
    assert ended.err == f"{job_id} is enqueued in default\n"
    assert typed("result", job_id).json == {"to": 7, "subject": "", "html": True}
    whole = typed("result", job_id, "--queue", "default", "--json").json
    assert whole == {
        "id": job_id,
        "queue": "default",
        "state": "SUCCESS",
        "result": {"to": 7, "subject": "", "html": True},
    }

    ended = typed("enqueue", "fail", '"two\\n\\nlines"', "--wait", "--timeout", "20s")
    assert (ended.code, ended.out) == (1, "")
    assert "ValueError: two\n" in ended.err
    assert "lines" in ended.err
    assert "-v    shows the traceback of the worker" in ended.err
    assert "in fail" not in ended.err
    failed = ended.err.split()[0]
    ended = typed("result", failed, "-v")
    assert (ended.code, ended.out) == (1, "")
    assert ", in fail\n" in ended.err
    ended = typed("result", failed, "--json")
    assert ended.code == 1
    row = json.loads(ended.out)
    assert (row["id"], row["state"], row["error"]) == (failed, "FAILURE", "ValueError")
    assert ", in fail\n" in row["traceback"]


def test_a_job_that_does_not_end_in_time(typed: Keyboard) -> None:
    ended = typed("enqueue", "t", "--job-id", "mine", "--wait", "--timeout", "10ms")
    assert (ended.code, ended.out) == (6, "")
    assert "job mine did not finish within 0.01 s" in ended.err
    assert "type   streamq explain mine\n         streamq result mine\n" in ended.err
    assert typed("result", "mine", "--timeout", "10ms").code == 6


def test_other_ends(typed: Keyboard) -> None:
    async def work(app: StreamQ[Any]) -> None:
        for job_id in ("cancelled", "expired", "unkept", "odd"):
            await app.send_task("t", job_id=job_id)
        await app.job("cancelled", "default").cancel("withdrawn")
        hand = Hand(app)
        expired, unkept, odd = await hand.take()
        await hand.settle(expired, Complete(record(State.EXPIRED), 60_000))
        await hand.settle(unkept, Complete(record(State.SUCCESS), 0))
        await hand.succeed(odd, {"data": b"\x00\xff", "text": "é"})

    typed.meanwhile(work)
    ended = typed("result", "cancelled")
    assert (ended.code, ended.out, ended.err) == (1, "", "streamq: t cancelled was cancelled: withdrawn\n")
    ended = typed("result", "expired", "--json")
    assert (ended.code, ended.json["state"]) == (1, "EXPIRED")
    assert typed("result", "odd").json == {"data": "AP8=", "text": "é"}
    for job_id in ("unkept", "nobody"):
        ended = typed("result", job_id)
        assert (ended.code, ended.out) == (4, "")
        assert f"There is no job '{job_id}'" in ended.err
    assert typed("result", "odd", "--url", "redis://127.0.0.1:1/0").code == 3
    assert typed("result").code == 2
    assert typed("result", "odd", "--timeout", "soon").code == 2


def test_ctrl_c_while_waiting_is_quiet(typed: Keyboard, start: Start) -> None:
    typed("enqueue", "t", "--job-id", "mine")
    process = start("result", "mine", **environ(typed))

    async def waits(app: StreamQ[Any]) -> None:
        side = app.broker.keys("default").side
        async with asyncio.timeout(20):
            while not await app.broker.line("commands").call("HEXISTS", side, "w:mine"):
                await asyncio.sleep(0.02)

    typed.meanwhile(waits)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "\n")
    assert process.returncode == 130


# ---- files --------------------------------------------------------------------------------------------------


def lines(*calls: object) -> str:
    return "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in calls)


def test_a_file_of_jobs(typed: Keyboard) -> None:
    calls = [{"task": "a", "args": [n], "kwargs": {"n": n}} for n in range(1_200)]
    special = {"task": "b", "queue": "slow", "priority": 4, "countdown": "1h", "job_id": "mine", "headers": {"x": "y"}}
    Path("jobs.jsonl").write_text(lines(*calls, "", special))
    ended = typed("enqueue", "--from-file", "jobs.jsonl", "--jsonl", "--priority", "2")
    assert ended.code == 0
    assert ended.err.startswith("1,201 jobs enqueued, ")
    rows = ended.jsonl
    assert [row["line"] for row in rows] == [*range(1, 1_201), 1_202]
    assert rows[-1] == {"line": 1_202, "id": "mine", "task": "b", "queue": "slow", "deduplicated": False}
    assert count(typed) == 1_200
    assert arguments(typed, rows[777]["id"]) == ([777], {"n": 777})
    assert info(typed, rows[777]["id"]).priority == 2
    found = info(typed, "mine")
    assert (found.priority, found.state, found.headers) == (4, State.SCHEDULED, {"x": "y"})


def test_ids_only_if_asked_for(typed: Keyboard) -> None:
    Path("jobs.jsonl").write_text(lines({"task": "a"}, {"task": "a"}).rstrip())  # no line break at the end
    ended = typed("enqueue", "--from-file", "jobs.jsonl")
    assert (ended.code, ended.out) == (0, "")
    assert [row["line"] for row in typed("enqueue", "--from-file", "jobs.jsonl", "--json").json] == [1, 2]
    Path("jobs.jsonl").write_text("")
    ended = typed("enqueue", "--from-file", "jobs.jsonl", "--json")
    assert (ended.code, ended.out, ended.err) == (0, "[]\n", "0 jobs enqueued, 0/s\n")
    assert count(typed) == 4


BAD_LINES = [
    ("{'task': 'a'}", "no JSON object: ", 2),
    ("[1]", "no JSON object: ", 2),
    ('{"tusk": "a"}', "it names no task", 2),
    ({"task": 7}, "it names no task", 2),
    ({"task": "a", "args": "x"}, "args is an array, kwargs an object", 2),
    ({"task": "a", "kwargs": []}, "args is an array, kwargs an object", 2),
    ({"task": "a", "qeue": "x"}, "qeue is not a known call option. Did you mean queue?", 2),
    ({"task": "a", "countdown": "soon"}, "countdown='soon' is not a duration", 2),
    ({"task": "a", "args": [10**30]}, "cannot be serialised", 2),
    ({"task": "a", "args": ["x" * 1_100_000]}, "bytes once encoded", 2),
    ("[" * 100_000, "no JSON object", 2),
    ('{"task": "\xff"}', "no JSON object", 2),
    ("x" * (8 * 1_048_576 + 1), "more than 8,388,608 bytes", 2),
]


@pytest.mark.parametrize(("bad", "said", "code"), BAD_LINES, ids=[row[1][:20] for row in BAD_LINES])
def test_a_bad_line(typed: Keyboard, bad: object, said: str, code: int) -> None:
    good = {"task": "a"}
    Path("my jobs").write_bytes(lines(good, "", good, bad, good).encode("latin-1"))
    ended = typed("enqueue", "--from-file", "my jobs", "--json", "--queue", "q")
    assert ended.code == code
    assert [row["line"] for row in ended.json] == [1, 3]
    told = ended.err.splitlines()
    assert told[0].startswith("2 jobs enqueued, ")
    assert told[1].startswith("streamq: line 4 of my jobs: ")
    assert said in told[1]
    assert "  where  2 jobs of lines 1 to 3 are enqueued" in told
    assert "  type   tail -n +4 'my jobs' | streamq enqueue --from-file - --json --queue q    once it is mended" in told
    assert count(typed, "q") == 2


def test_a_bad_line_after_many_chunks(typed: Keyboard) -> None:
    Path("jobs.jsonl").write_text(lines(*[{"task": "a"}] * 1_300, "oops", *[{"task": "a"}] * 300))
    ended = typed("enqueue", "--from-file", "jobs.jsonl")
    assert ended.code == 2
    assert "streamq: line 1,301 of jobs.jsonl: " in ended.err
    assert "1,300 jobs of lines 1 to 1,300 are enqueued" in ended.err
    assert count(typed) == 1_300


def test_a_bad_first_line(typed: Keyboard) -> None:
    Path("jobs.jsonl").write_text(lines("oops", {"task": "a"}))
    ended = typed("enqueue", "--from-file", "jobs.jsonl")
    assert "  where  nothing is enqueued\n" in ended.err
    assert count(typed) == 0


def test_a_misspelt_task_in_a_file(typed: Keyboard) -> None:
    Path("jobs.jsonl").write_text(lines({"task": "mail.send", "args": [1]}, {"task": "mail.sned"}))
    ended = typed("enqueue", "--from-file", "jobs.jsonl", *APP)
    assert ended.code == 4
    assert "line 2 of jobs.jsonl: there is no task 'mail.sned'" in ended.err
    assert "cause  it is misspelt: there is mail.send" in ended.err
    assert count(typed) == 1


def test_an_idempotency_key_of_another_call(typed: Keyboard) -> None:
    keyed = [{"task": "a", "args": [n], "idempotency_key": str(n % 3)} for n in range(5)]
    Path("jobs.jsonl").write_text(lines({"task": "a"}, *keyed, {"task": "a"}))
    ended = typed("enqueue", "--from-file", "jobs.jsonl", "--json")
    assert ended.code == 2
    assert [row["line"] for row in ended.json] == [1, 2, 3, 4, 7]
    assert "line 5 of jobs.jsonl: a: the idempotency key '0' belongs to the job" in ended.err
    assert "5 jobs of lines 1 to 7 are enqueued" in ended.err
    assert "tail -n +8 jobs.jsonl" in ended.err
    assert count(typed) == 5
    Path("jobs.jsonl").write_text(lines(*keyed[:3]))
    assert [row["deduplicated"] for row in typed("enqueue", "--from-file", "jobs.jsonl", "--json").json] == [True] * 3


def test_a_middleware_may_refuse_a_line(typed: Keyboard) -> None:
    Path("strict.py").write_text(
        "from streamq import InvalidArguments, Middleware, StreamQ\n"
        "class Strict(Middleware):\n"
        "    async def send(self, call, proceed):\n"
        "        if call.args == (2,): raise InvalidArguments('not two')\n"
        "        return await proceed()\n"
        "app = StreamQ(middleware=[Strict()])\n"
    )
    Path("jobs.jsonl").write_text(lines(*({"task": "a", "args": [n]} for n in range(4))))
    ended = typed("enqueue", "--from-file", "jobs.jsonl", "--app", "strict:app", "--json")
    assert (ended.code, [row["line"] for row in ended.json]) == (2, [1, 2, 4])
    assert "line 3 of jobs.jsonl: not two" in ended.err
    assert count(typed) == 3


def test_a_pipe_is_enqueued_as_it_comes(typed: Keyboard, start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start("enqueue", "--from-file", "pipe", "--jsonl", **environ(typed))
    assert process.stdout is not None
    with (tmp_path / "pipe").open("w") as pipe:
        for n in range(3):
            pipe.write(lines({"task": "a", "args": [n]}))
            pipe.flush()
            assert json.loads(process.stdout.readline())["line"] == n + 1  # before the next is written
        pipe.write('{"task": "a"}')
    assert json.loads(process.stdout.readline())["line"] == 4
    assert process.wait(20) == 0
    assert count(typed) == 4


def test_a_line_without_end(typed: Keyboard, start: Start, tmp_path: Path) -> None:
    """It is refused while it comes, not kept until it ends."""
    os.mkfifo(tmp_path / "pipe")
    process = start("enqueue", "--from-file", "pipe", STREAMQ_MAX_PAYLOAD="100000", **environ(typed))
    with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
        assert pipe.write(b"x" * 30_000_000) < 2_000_000  # then nobody read any more
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "line 1 of pipe: more than 800,000 bytes" in err) == (2, True)


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_stdin(typed: Keyboard, start: Start, tmp_path: Path, how: str) -> None:
    (tmp_path / "jobs").write_text(lines({"task": "a"}, "oops"))
    command = {
        "pipe": f"cat jobs | {sys.executable} -m streamq enqueue --from-file -",
        "file": f"{sys.executable} -m streamq enqueue --from-file - < jobs",
    }
    done = subprocess.run(
        command[how],
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environ(typed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "line 2 of stdin: " in done.stderr
    assert "type   the lines from 2 on, once more" in done.stderr
    assert count(typed) == 1


def test_ctrl_c_tells_what_is_enqueued(typed: Keyboard, start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start("enqueue", "--from-file", "pipe", "--jsonl", **environ(typed))
    assert process.stdout is not None
    with (tmp_path / "pipe").open("w") as pipe:
        pipe.write(lines({"task": "a"}))
        pipe.flush()
        assert json.loads(process.stdout.readline())["line"] == 1
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.fullmatch(r"1 job enqueued, \d+/s\n\n", err)


def test_redis_goes_away_in_the_middle(typed: Keyboard, start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with EmbeddedServer.start() as server:
        process = start("enqueue", "--from-file", "pipe", "--jsonl", STREAMQ_URL=server.url, STREAMQ_TIMEOUT="0.2")
        assert process.stdout is not None
        with (tmp_path / "pipe").open("w") as pipe:
            pipe.write(lines({"task": "a"}))
            pipe.flush()
            assert json.loads(process.stdout.readline())["line"] == 1
            server.stop()
            pipe.write(lines({"task": "a"}, {"task": "a", "idempotency_key": "k"}))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert "streamq: lines from 2 on of pipe: " in err
    assert "where  1 job of lines 1 to 1 is enqueued, of lines 2 to 3 nobody knows" in err
    assert "tail -n +2 pipe | streamq enqueue --from-file - --jsonl" in err


def test_a_bar_on_a_terminal(typed: Keyboard, terminal: Terminal) -> None:
    Path("jobs.jsonl").write_text(lines(*[{"task": "a"}] * 1_500))
    code, text = terminal("enqueue", "--from-file", "jobs.jsonl")
    assert code == 0
    assert "enqueueing  [" in text
    assert "1500/1500" in text
    assert text.splitlines()[-1].startswith("1,500 jobs enqueued, ")
    assert count(typed) == 1_500


# ---- completion ---------------------------------------------------------------------------------------------


def completed(*words: str, incomplete: str = "") -> list[str]:
    """What a shell would be offered."""
    found = ShellComplete(streamq, {}, "streamq", "_STREAMQ_COMPLETE").get_completions(list(words), incomplete)
    return [each.value for each in found]


def test_queue_names(typed: Keyboard) -> None:
    assert completed("jobs", "list", "--queue") == []
    for queue in ("emails", "errands", "pay"):
        typed("enqueue", "t", "--queue", queue)
    assert completed("jobs", "list", "--queue") == ["emails", "errands", "pay"]
    assert completed("dlq", "retry", "-q", incomplete="e") == ["emails", "errands"]
    assert completed("jobs", "list", "--app", "shop:app", "--queue") == ["default", "emails", "errands", "pay", "slow"]
    assert completed("jobs", "list", "--namespace", "other", "--queue") == []


@pytest.mark.usefixtures("working")
def test_task_names_of_live_workers(typed: Keyboard) -> None:
    typed("enqueue", "mail.send", "1", "--wait", "--timeout", "20s")  # the worker is there
    assert completed("enqueue") == ["fail", "mail.copy", "mail.send"]
    assert completed("jobs", "list", "--task", incomplete="mail.") == ["mail.copy", "mail.send"]


def test_task_names_of_the_application(typed: Keyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("enqueue") == []
    assert completed("enqueue", "--app", "shop:app", incomplete="mail.s") == ["mail.send"]
    Path("streamq.toml").write_text('app = "shop:app"\n')
    assert completed("enqueue", incomplete="f") == ["fail"]


def test_completion_is_silent_without_redis(
    typed: Keyboard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("noisy.py").write_text("print('hello')\nimport sys\nprint('oh', file=sys.stderr)\n1 / 0\n")
    monkeypatch.setenv("STREAMQ_URL", "redis://127.0.0.1:1/0")
    assert completed("jobs", "list", "--queue") == []
    assert completed("enqueue", "--app", "noisy:app") == []
    assert completed("enqueue", "--url", "embedded:///" + str(Path("kept").resolve()).lstrip("/")) == []
    assert not Path("kept").exists()  # nobody starts a server to complete a word
    assert completed("enqueue", "--url", "http://x") == []
    assert capsys.readouterr() == ("", "")


def test_completion_does_not_wait_for_a_silent_server(typed: Keyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """This server accepts and never answers: a command would hear of it after 5 seconds."""
    monkeypatch.setattr("streamq.cli.completing.PATIENCE", 0.1)
    found: list[list[str]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        ctx = click.Context(streamq)
        ctx.params["url"] = f"redis://127.0.0.1:{server.getsockname()[1]}/0"

        def ask() -> None:
            found.append(queue_names(ctx, click.Argument(["x"]), ""))
            found.append(task_names(ctx, click.Argument(["x"]), ""))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(4)
    assert found == [[], []]
