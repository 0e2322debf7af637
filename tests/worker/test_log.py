"""Log lines: stable names, the job's id, no arguments."""

from __future__ import annotations

import json
import logging

import pytest

from streamq import JobFailed
from streamq.client.context import current_job_id
from streamq.worker.log import JsonFormatter, TextFormatter
from tests.conftest import MakeApp


def record(msg: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("streamq.job", logging.INFO, __file__, 1, msg, (), None)
    vars(made).update(extra)
    return made


def test_json_has_the_fields_of_a_job() -> None:
    line = json.loads(
        JsonFormatter().format(
            record("done", job_id="1", task="add", queue="q", attempt=1, state="SUCCESS", duration_ms=3.5, error="")
        )
    )
    ts = line.pop("ts")
    assert ts.endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "streamq.job",
        "msg": "done",
        "job_id": "1",
        "task": "add",
        "queue": "q",
        "attempt": 1,
        "state": "SUCCESS",
        "duration_ms": 3.5,
    }


def test_lines_of_a_task_carry_the_id_of_its_job() -> None:
    token = current_job_id.set("abc")
    try:
        mine = record("hello")
        mine.name = "shop"
        assert json.loads(JsonFormatter().format(mine))["job_id"] == "abc"
        assert "[abc] hello" in TextFormatter().format(mine)
    finally:
        current_job_id.reset(token)


def test_errors_are_one_line_of_json() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        failed = record("oops")
        failed.exc_info = (ValueError, error, error.__traceback__)
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    assert "ValueError: a\nb" in json.loads(line)["error"]


async def test_arguments_are_shown_only_if_the_task_says_so(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    shop = app()

    @shop.task(name="open", log_args=True)
    async def opened(what: str, *, times: int = 1) -> None: ...

    @shop.task(name="closed")
    async def closed(what: str) -> None: ...

    caplog.set_level(logging.INFO, "streamq.job")
    async with shop, shop.worker():
        await (await opened.enqueue("door", times=2)).result(timeout=10)
        await (await opened.enqueue("x" * 5_000)).result(timeout=10)
        await (await closed.enqueue("secret")).result(timeout=10)
    lines = [each.getMessage() for each in caplog.records if each.name == "streamq.job"]
    assert lines[0].startswith("open('door', times=2)[")
    assert lines[1].startswith("open('xxx")
    assert len(lines[1]) < 700
    assert "secret" not in lines[2]


async def test_an_exception_cannot_forge_a_line(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    shop = app()

    @shop.task(name="forge")
    async def forge() -> None:
        raise ValueError("no\n2026-01-01 INFO streamq.job pay[1] SUCCESS\x1b[2J")

    caplog.set_level(logging.INFO, "streamq.job")
    async with shop, shop.worker():
        with pytest.raises(JobFailed):
            await (await forge.enqueue()).result(timeout=10)
        await shop.dead_letters().discard()
    (line,) = [each.getMessage() for each in caplog.records if each.name == "streamq.job"]
    assert line.isprintable()
    assert line.endswith("ValueError: no 2026-01-01 INFO streamq.job pay[1] SUCCESS\ufffd[2J")
