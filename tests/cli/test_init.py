"""`streamq init`: what it writes is typed, runs, and overwrites nothing."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamq import StreamQ
from tests.worker.waits import one_server

from .conftest import PROJECT, Start


def begun(start: Start, *words: str) -> tuple[int, str, str]:
    process = start("init", *words)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_it_says_what_to_type_next(start: Start, tmp_path: Path) -> None:
    assert begun(start, "my shop") == (
        0,
        """\
wrote my shop/app.py and my shop/streamq.toml

Type next:

  cd 'my shop'
  streamq worker                            # runs the jobs; Ctrl-C ends it
  streamq enqueue app.greet '"Ada"' --wait  # in another terminal
  streamq schedule next                     # what is due when
""",
        "",
    )
    written = (tmp_path / "my shop" / "streamq.toml").read_text()
    assert 'app = StreamQ(namespace="my-shop")' in (tmp_path / "my shop" / "app.py").read_text()
    (embedded,) = (line for line in written.splitlines() if line.startswith("# url = "))
    assert tomllib.loads(embedded.removeprefix("# "))["url"] == f"embedded://{tmp_path}/my%20shop/.streamq"


@pytest.mark.parametrize("taken", ["app.py", "streamq.toml"])
def test_nothing_is_overwritten(start: Start, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("# mine")
    assert begun(start) == (
        2,
        "",
        f"streamq: {taken} exists\n\n"
        f"  where  {tmp_path / taken}\n"
        "  cause  there is an application already, and nothing is overwritten\n"
        "  type   streamq init FOLDER\n",
    )
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {taken: "# mine"}


def test_what_it_writes_is_typed(start: Start, tmp_path: Path) -> None:
    assert begun(start)[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", "app.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@one_server
async def test_what_it_writes_runs(start: Start, url: str, tmp_path: Path) -> None:
    assert (await asyncio.to_thread(begun, start))[0] == 0
    settings = tmp_path / "streamq.toml"
    written = tomllib.loads(settings.read_text())
    settings.write_text(settings.read_text().replace(written["url"], url))
    (namespace,) = re.findall(r'namespace="([^"]+)"', (tmp_path / "app.py").read_text())
    try:
        async with StreamQ(url, namespace=namespace) as app:
            greeting = await app.enqueue("app.greet", "Ada")
            words = await app.enqueue("app.count_words", "one two three")
            delivered = await app.enqueue("app.deliver", "Ada")
            process = start("worker")
            assert await greeting.result(timeout=20) == "Hello, Ada!"
            assert await words.result(timeout=20) == 3
            assert await delivered.result(timeout=20) == "delivered to Ada on attempt 3"
            out = await asyncio.to_thread(lambda: start("schedule", "next").communicate(timeout=20)[0])
            assert [line.split("\t")[1:] for line in out.splitlines()] == [["app.every_minute"] * 2 + ["default"]] * 5
            process.terminate()
            _, err = await asyncio.to_thread(process.communicate, timeout=20)
            assert process.returncode == 0, err
    finally:
        async with StreamQ(url, namespace=namespace) as app:
            for key in await app.broker.command("KEYS", f"sq:{{{namespace}*"):  # type: ignore[union-attr]
                await app.broker.command("DEL", key)  # type: ignore[arg-type]
