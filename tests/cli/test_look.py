"""`streamq info`, `queues`, `workers` and `explain` as they are typed: text, JSON, a terminal, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamq import State, StreamQ
from streamq.broker.inspector import WorkerInfo
from tests.conftest import MakeApp
from tests.worker.waits import one_server

from .conftest import PROJECT, Start

STARTED = 1_750_000_000_000
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DOWN = "redis://localhost:1/0"

pytestmark = one_server  # what is tested here is text; what stands behind it is tested on every kind of server


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def fields(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Ended]


@pytest.fixture
def typed(start: Start, url: str, namespace: str) -> Type:
    """`streamq ...` in a pipe, on this test's server and namespace."""

    def run(*words: str) -> Ended:
        process = start(*words, STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace)
        out, err = process.communicate(timeout=20)
        return Ended(process.returncode, out, err)

    return run


@pytest.fixture
async def here(app: MakeApp) -> StreamQ[Any]:
    """Two queued jobs and a scheduled one in `emails`, a queued one in `default`, and a worker that runs one more."""
    made = app()
    await made.open()
    for number in range(3):
        await made.tasks["mail"].using(job_id=f"mail-{number}").enqueue()
    await made.tasks["mail"].using(countdown="1h", job_id="mail-later").enqueue()
    await made.enqueue("shop.add")
    await made.broker.turn("emails", "w3", [], 1, request=1)
    info = WorkerInfo("w3", "ham", 7, "0.1.0", ["emails"], 4, ["mail"], STARTED, [("mail-0", "mail", STARTED)])
    renewer = made.broker.renewer()
    renewer.renew("emails", "w3", [], msgspec.msgpack.encode(info), 30_000)
    renewer.close()
    return made


@pytest.fixture
def app(app: MakeApp) -> MakeApp:
    def make(**settings: Any) -> StreamQ[Any]:
        made = app(**settings)

        @made.task(name="mail", queue="emails")
        async def mail() -> None: ...

        return made

    return make


def on_a_terminal(words: list[str], url: str, namespace: str, folder: Path, answer: bytes = b"") -> tuple[int, str]:
    """What a person sees, stderr too."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "STREAMQ_URL": url, "STREAMQ_NAMESPACE": namespace}
    command = [sys.executable, "-m", "streamq", *words]
    process = subprocess.Popen(command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(timeout=10), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode()).replace("\r\n", "\n")


# ---- queues -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["queues"], ["queues", "list"]])
def test_the_queues_in_a_pipe(typed: Type, here: StreamQ[Any], words: list[str]) -> None:
    ended = typed(*words)
    assert (ended.code, ended.err) == (0, "")
    assert [[*row[:5], *row[6:]] for row in ended.fields] == [
        ["default", "1", "0", "0", "0", "0", "", ""],
        ["emails", "2", "1", "1", "0", "1", "", ""],
    ]
    assert all(0 <= float(row[5]) < 60 for row in ended.fields)  # seconds


def test_the_queues_as_json(typed: Type, here: StreamQ[Any]) -> None:
    default, emails = typed("queues", "--json").data
    assert (emails["queue"], emails["queued"], emails["by_priority"], emails["paused"]) == ("emails", 2, {"0": 2}, None)
    lines = typed("queues", "list", "--jsonl").out.splitlines()
    assert [json.loads(line)["queue"] for line in lines] == [default["queue"], "emails"]


async def test_the_queues_on_a_terminal(here: StreamQ[Any], url: str, namespace: str, tmp_path: Path) -> None:
    await here.queue("emails").pause("the provider is down")
    code, seen = await asyncio.to_thread(on_a_terminal, ["queues"], url, namespace, tmp_path)
    head, default, emails = seen.splitlines()
    assert code == 0
    assert " ".join(head.split()) == "QUEUE QUEUED RUNNING SCHEDULED DEAD OLDEST WORKERS PAUSED REASON"
    assert re.fullmatch(r"default +1 +0 +0 +0 +\d+(\.\d)? s +0 +- +-", default)
    assert re.fullmatch(rf"emails +2 +1 +1 +0 +\d+(\.\d)? s +1 +{ISO.pattern} +the provider is down", emails)


def test_before_any_queue_is_used(typed: Type) -> None:
    ended = typed("queues")
    assert (ended.code, ended.out, ended.err) == (0, "", "no queue has been used yet\n")
    assert typed("queues", "--json").data == []


async def test_pause_and_resume(typed: Type, here: StreamQ[Any]) -> None:
    ended = await asyncio.to_thread(typed, "queues", "pause", "emails", "--reason", "the provider is down")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"queue\temails\npaused\t{ISO.search(ended.out)[0]}\nreason\tthe provider is down\n"  # type: ignore[index]
    pause = (await here.queue("emails").info()).paused
    assert pause is not None
    assert pause.reason == "the provider is down"
    ended = await asyncio.to_thread(typed, "queues", "resume", "emails", "--json")
    assert ended.data == {"queue": "emails", "resumed": True}
    assert (await here.queue("emails").info()).paused is None
    ended = await asyncio.to_thread(typed, "queues", "resume", "emails")
    assert (ended.code, ended.out, ended.err) == (0, "queue\temails\nresumed\tfalse\n", "emails was not paused\n")


@pytest.mark.parametrize("verb", ["pause", "resume", "purge"])
def test_a_misspelt_queue(typed: Type, here: StreamQ[Any], url: str, namespace: str, verb: str) -> None:
    ended = typed("queues", verb, "emial")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        "streamq: there is no queue 'emial'\n\n"
        f"  where  the namespace '{namespace}' of {here.broker.where}\n"
        "  cause  it is misspelt: there is emails\n"
        f"  type   streamq queues {verb} emails\n"
    )


@pytest.mark.parametrize("verb", ["pause", "resume", "purge"])
def test_a_queue_with_no_near_name(typed: Type, here: StreamQ[Any], verb: str) -> None:
    ended = typed("queues", verb, "reports")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.endswith("  cause  there are default, emails\n  type   streamq queues    shows what is in each\n")


def test_a_misspelt_verb(typed: Type) -> None:
    ended = typed("queues", "puase", "emails")
    assert (ended.code, ended.out) == (2, "")
    assert "\n  cause  it is misspelt: there is pause\n" in ended.err
    assert ended.err.endswith("streamq queues pause emails\n")


async def test_purge_counts_first_and_needs_a_yes(typed: Type, here: StreamQ[Any]) -> None:
    ended = await asyncio.to_thread(typed, "queues", "purge", "emails", "--dry-run")
    assert (ended.code, ended.out, ended.err) == (0, "", "would cancel 3 waiting jobs of emails\n")
    ended = await asyncio.to_thread(typed, "queues", "purge", "emails")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("streamq: this would cancel 3 waiting jobs of emails\n")
    assert ended.err.endswith("  type   streamq queues purge emails --yes\n")
    assert (await here.queue("emails").info()).queued == 2
    ended = await asyncio.to_thread(typed, "queues", "purge", "emails", "--yes")
    assert (ended.code, ended.out, ended.err) == (0, "queue\temails\ncancelled\t3\n", "")
    states = [await here.job(f"mail-{each}").status() for each in (0, 1, 2, "later")]
    assert states == [State.STARTED, *[State.CANCELLED] * 3]
    ended = await asyncio.to_thread(typed, "queues", "purge", "emails", "--yes")
    assert (ended.code, ended.err) == (0, "nothing to do: would cancel 0 waiting jobs of emails\n")


@pytest.mark.parametrize(("answer", "code", "queued"), [(b"y\n", 0, 0), (b"n\n", 130, 2)])
async def test_purge_asks_on_a_terminal(
    here: StreamQ[Any], url: str, namespace: str, tmp_path: Path, answer: bytes, code: int, queued: int
) -> None:
    words = ["queues", "purge", "emails"]
    ended, seen = await asyncio.to_thread(on_a_terminal, words, url, namespace, tmp_path, answer)
    assert "Cancel 3 waiting jobs of emails? [y/N]" in seen
    assert ended == code
    assert ("cancelling  [#" in seen) == (code == 0)
    assert (await here.queue("emails").info()).queued == queued


# ---- workers, info ----------------------------------------------------------------------------------------------


def test_the_workers(typed: Type, here: StreamQ[Any]) -> None:
    ended = typed("workers")
    since = "2025-06-15T15:06:40.000Z"
    assert (ended.code, ended.err) == (0, "")
    assert ended.fields == [["w3", "ham", "7", "0.1.0", "emails", "1", "4", since, "mail:mail-0"]]
    (worker,) = typed("workers", "--json").data
    assert worker["jobs"] == [{"id": "mail-0", "task": "mail", "since": since}]
    assert worker["queues"] == ["emails"]
    ended = typed("workers", "--queue", "default")
    assert (ended.code, ended.out, ended.err) == (0, "", "no live worker\n")
    assert typed("workers", "--queue", "emial").code == 4


def test_info_in_a_pipe(typed: Type, here: StreamQ[Any], namespace: str) -> None:
    ended = typed("info")
    assert (ended.code, ended.err) == (0, "")
    server, *others = ended.fields
    assert server[0] == "server"
    assert server[1] in ("Redis", "Valkey")
    assert server[3:5] == [here.broker.where, namespace]
    assert [row[:2] for row in others] == [["queue", "default"], ["queue", "emails"], ["worker", "w3"]]


def test_info_as_json(typed: Type, here: StreamQ[Any], namespace: str) -> None:
    found = typed("info", "--json").data
    (server,) = found["servers"]
    assert server["namespace"] == namespace
    assert server["used_memory"] > 0
    assert [each["queue"] for each in found["queues"]] == ["default", "emails"]
    assert [each["id"] for each in found["workers"]] == ["w3"]
    kinds = [json.loads(line)["kind"] for line in typed("info", "--jsonl").out.splitlines()]
    assert kinds == ["server", "queue", "queue", "worker"]


def test_info_on_a_terminal(here: StreamQ[Any], url: str, namespace: str, tmp_path: Path) -> None:
    code, seen = on_a_terminal(["info"], url, namespace, tmp_path)
    assert code == 0
    server, empty, queues, _, emails, _, workers, w3 = seen.splitlines()
    where = re.escape(here.broker.where)
    assert re.fullmatch(rf"(Redis|Valkey) [\d.]+ at {where}: [\d.,]+ MB used, no maxmemory", server)
    assert (empty, queues.split()[0], workers.split()[0]) == ("", "QUEUE", "ID")
    assert emails.startswith("emails ")
    assert w3.split()[-1] == "mail:mail-0"


# ---- explain ----------------------------------------------------------------------------------------------------


async def test_explain(typed: Type, here: StreamQ[Any]) -> None:
    job = await here.enqueue("mails")
    ended = await asyncio.to_thread(typed, "explain", job.id)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "No live worker serves the queue 'default': they serve 'emails'.\nstreamq worker MODULE:APP -Q default\n"
    )
    ended = await asyncio.to_thread(typed, "explain", job.id, "--json")
    assert ended.data == {
        "id": job.id,
        "state": "QUEUED",
        "cause": "No live worker serves the queue 'default': they serve 'emails'.",
        "fix": "streamq worker MODULE:APP -Q default",
    }


def test_explain_an_unknown_id(typed: Type, here: StreamQ[Any], namespace: str) -> None:
    ended = typed("explain", "nope")
    assert (ended.code, ended.err) == (4, "")
    assert ended.out.startswith(
        f"There is no job 'nope' in the queues 'default', 'emails' of the namespace '{namespace}'."
    )
    ended = typed("explain", "nope", "--json")
    assert (ended.code, ended.data["state"]) == (4, None)
    assert typed("explain", "nope", "--queue", "emial").code == 4


@pytest.mark.parametrize("words", [["info"], ["queues"], ["queues", "pause", "x"], ["workers"], ["explain", "x"]])
def test_redis_down_is_one_screen(typed: Type, words: list[str]) -> None:
    ended = typed(*words, "--url", DOWN)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"streamq: cannot reach Redis: the connection was refused\n\n  where  {DOWN}\n")
    assert "Traceback" not in ended.err
