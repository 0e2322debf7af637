"""`streamq schedule` and `streamq beat` as processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from streamq import Context, StreamQ
from tests.worker.waits import one_server, until

from .conftest import Start

APP = """
from streamq import StreamQ

app = StreamQ()
bare = StreamQ()

@app.cron("0 3 * * *", tz="Europe/Berlin", name="nightly", queue="slow")
@app.every("100ms", name="often")
@app.task(name="tick")
async def tick() -> None: ...

@bare.task(name="tock")
async def tock() -> None: ...
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(start: Start, url: str, namespace: str, tmp_path: Path) -> Run:
    """`streamq ...` in a folder with shop.py, whose application is named in the environment."""
    (tmp_path / "shop.py").write_text(APP)

    def run(*words: str, **environ: str) -> tuple[int, str, str]:
        known = {"STREAMQ_URL": url, "STREAMQ_NAMESPACE": namespace, "STREAMQ_APP": "shop:app", **environ}
        process = start(*words, **known)
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err

    return run


@pytest.fixture
async def shop(url: str, namespace: str) -> AsyncIterator[StreamQ[Any]]:
    async with StreamQ(url, namespace=namespace) as app:
        yield app


@one_server
def test_the_list_in_a_pipe_and_as_json(run: Run) -> None:
    code, out, err = run("schedule", "list")
    assert (code, err) == (0, "")
    often, nightly = (line.split("\t") for line in out.splitlines())
    assert often[:6] == ["often", "every 100ms", "", "tick", "default", ""]
    assert nightly[:6] == ["nightly", "0 3 * * *", "Europe/Berlin", "tick", "slow", ""]
    assert datetime.fromisoformat(nightly[6]) > datetime.now(UTC)
    assert nightly[7] == ""
    code, out, err = run("schedule", "list", "--json")
    assert (code, err) == (0, "")
    assert [(each["name"], len(each["next"]), each["paused"]) for each in json.loads(out)] == [
        ("often", 3, None),
        ("nightly", 3, None),
    ]


@one_server
def test_the_next_occurrences(run: Run) -> None:
    code, out, _ = run("schedule", "next", "-n", "3")
    assert code == 0
    assert [line.split("\t")[1:] for line in out.splitlines()] == [["often", "tick", "default"]] * 3
    code, out, _ = run("schedule", "next", "nightly", "--jsonl")
    assert code == 0
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["nightly"] * 5


@one_server
async def test_one_is_run_and_paused_and_resumed(run: Run, shop: StreamQ[Any]) -> None:
    code, out, _ = await asyncio.to_thread(run, "schedule", "pause", "nightly", "--json")
    assert code == 0
    assert json.loads(out)["paused"] is not None
    code, out, err = await asyncio.to_thread(run, "schedule", "next", "nightly")
    assert (code, out, err) == (0, "", "nightly is paused\n")
    code, out, _ = await asyncio.to_thread(run, "schedule", "run", "nightly")
    assert code == 0
    assert (await shop.job(out.strip(), "slow").info()).task == "tick"
    code, out, err = await asyncio.to_thread(run, "schedule", "resume", "nightly", "--json")
    assert (code, json.loads(out)["paused"], err) == (0, None, "")
    code, _, err = await asyncio.to_thread(run, "schedule", "resume", "nightly")
    assert (code, err) == (0, "nightly was not paused\n")


SCREENS = [
    (
        ("schedule", "pause", "nigthly"),
        {},
        4,
        """\
streamq: there is no schedule 'nigthly'

  where  shop:app
  cause  it is misspelt: there is nightly
  type   streamq schedule pause nightly
""",
    ),
    (
        ("schedule", "run", "x"),
        {},
        4,
        """\
streamq: there is no schedule 'x'

  where  shop:app
  cause  there are nightly, often
""",
    ),
    (
        ("schedule", "list"),
        {"STREAMQ_APP": ""},
        2,
        """\
streamq: no application is named

  where  --app, STREAMQ_APP, and `app` in streamq.toml or [tool.streamq] of pyproject.toml
  cause  schedules stand in the code of an application; Redis knows only when they fired
  type   streamq schedule list --app shop.jobs:app    the module and the variable that holds the StreamQ
""",
    ),
    (
        ("schedule", "pause", "nightly", "--app", "shop:bare"),
        {},
        2,
        """\
streamq: shop:bare has no schedules

  cause  nothing in it is marked with @app.cron or @app.every, or the module that does is not imported
  type   @app.cron("0 3 * * *")    above a task
""",
    ),
    (
        ("beat", "shop:bare"),
        {},
        2,
        """\
streamq: shop:bare has no schedules

  cause  nothing in it is marked with @app.cron or @app.every, or the module that does is not imported
  type   @app.cron("0 3 * * *")    above a task
""",
    ),
    (
        ("beat",),
        {"STREAMQ_APP": ""},
        2,
        """\
streamq: no application is named

  where  the command line, STREAMQ_APP, and `app` in streamq.toml or [tool.streamq] of pyproject.toml
  cause  schedules stand in the code of an application
  type   streamq beat shop.jobs:app    the module and the variable that holds the StreamQ
""",
    ),
    (
        ("beat", "shop:ap"),
        {},
        2,
        """\
streamq: shop has no 'ap'

  where  shop.py
  cause  its applications are app, bare
  type   streamq beat shop:app
""",
    ),
]


@one_server
@pytest.mark.parametrize(("words", "environ", "code", "screen"), SCREENS, ids=[" ".join(each[0]) for each in SCREENS])
def test_what_cannot_be_done_is_one_screen(
    run: Run, words: tuple[str, ...], environ: dict[str, str], code: int, screen: str
) -> None:
    assert run(*words, **environ) == (code, "", screen)


# ---- beat -------------------------------------------------------------------------------------------------------


async def line_with(process: Popen[str], text: str) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while text not in (line := await asyncio.to_thread(process.stderr.readline)):
            assert line, f"the log ended before {text!r}"
    return line


def ticking(shop: StreamQ[Any]) -> list[str]:
    """The ids of the jobs that a worker of `shop` has run."""
    seen: list[str] = []

    @shop.task(name="tick")
    async def tick(ctx: Context[Any]) -> None:
        seen.append(ctx.job_id)

    return seen


@one_server
@pytest.mark.parametrize("workers_too", [False, True])
async def test_each_occurrence_is_fired_once(
    start: Start, url: str, namespace: str, tmp_path: Path, workers_too: bool
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    shop: StreamQ[Any] = StreamQ(url, namespace=namespace)
    seen = ticking(shop)
    shop.every("100ms", name="often")(shop.tasks["tick"])
    process = start("beat", "shop:app", STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace)
    await line_with(process, "beat: fires often, nightly")
    async with shop, shop.worker(schedules=workers_too):
        await until(lambda: len(seen) >= 10)
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.to_thread(process.communicate, timeout=20)
        count = len(seen)
        if workers_too:  # they go on
            await until(lambda: len(seen) > count)
    times = [int(job_id.removeprefix("cron-often-")) for job_id in seen]
    assert len(times) == len(set(times))
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert "beat: stopped" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_beat_waits_for_redis_and_ends_in_good_order(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    process = start("beat", "shop:app", "--url", "redis://localhost:1/0", "--log-format", "json")
    assert "next try in" in json.loads(await line_with(process, "cannot"))["msg"]
    process.send_signal(number)
    _, err = await asyncio.to_thread(process.communicate, timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert "before Redis could be reached" in err
