"""`streamq init`: a first application to start from."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from streamq.cli.exits import Screen, Stopped, short_path
from streamq.cli.main import verbose_option

APP: Final = '''\
"""Tasks of {name}. `streamq worker` runs them; streamq.toml says where Redis is."""

from __future__ import annotations

import logging

from streamq import Context, StreamQ

log = logging.getLogger(__name__)
app = StreamQ(namespace="{name}")


@app.task
async def greet(name: str) -> str:
    """An `async def` runs on the event loop, beside many others."""
    return f"Hello, {{name}}!"


@app.task
def count_words(text: str) -> int:
    """A plain `def` runs in a thread."""
    return len(text.split())


@app.task(autoretry_for=(ConnectionError,), max_retries=5, default_retry_delay="1s")
async def deliver(ctx: Context[None], to: str) -> str:
    """It fails twice, is tried again a second later each time, and succeeds."""
    if ctx.attempt < 3:
        raise ConnectionError("the line is dead")
    return f"delivered to {{to}} on attempt {{ctx.attempt}}"


@app.cron("* * * * *")
@app.task
async def every_minute() -> None:
    """Enqueued once a minute, however many workers there are."""
    log.info("another minute has passed")
'''
SETTINGS: Final = """\
# What all commands of streamq in this folder use; `streamq config` shows it with all defaults.
# Programs of yours do not read this: give them the variable STREAMQ_URL.
app = "app:app"
url = "redis://localhost:6379/0"

# Without a Redis of your own, for development: pip install 'streamq[embedded]', and
# url = "embedded://{folder}/.streamq"    # runs while the worker does, and keeps its data in that folder

[worker]
concurrency = 100
"""
NEXT: Final = (
    ("streamq worker", "runs the jobs; Ctrl-C ends it"),
    ("streamq enqueue app.greet '\"Ada\"' --wait", "in another terminal"),
    ("streamq schedule next", "what is due when"),
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@verbose_option
def init(folder: Path) -> None:
    """Write a first application to start from: app.py and streamq.toml.

    \b
      streamq init
      streamq init shop

    Nothing is overwritten.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-") or "app"
    files = {
        folder / "app.py": APP.format(name=name),
        folder / "streamq.toml": SETTINGS.format(folder=quote(str(folder.resolve()))),
    }
    for path in files:
        if path.exists():
            cause = "there is an application already, and nothing is overwritten"
            raise Stopped(Screen(f"{short_path(str(path))} exists", str(path.resolve()), cause, "streamq init FOLDER"))
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    click.echo(f"wrote {' and '.join(map(str, files))}\n\nType next:\n")
    if folder.resolve() != Path.cwd().resolve():
        click.echo(f"  cd {shlex.quote(str(folder))}")
    for command, about in NEXT:
        click.echo(f"  {command:<42}# {about}")
