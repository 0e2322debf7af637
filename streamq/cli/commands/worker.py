"""`streamq worker`: runs the jobs of an application, in this process or in several under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import click

from streamq.cli import quantities
from streamq.cli.connected import loaded, unnamed
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.cli.main import Session, verbose_option
from streamq.cli.project import variable

if TYPE_CHECKING:
    from streamq.worker.app import StreamQ
    from streamq.worker.parent import Spec

NO_WATCHFILES: Final = Screen(
    "--reload needs the package watchfiles, which is not installed",
    "",
    "it is left out of the installation: in production nothing is reloaded",
    'pip install "streamq[reload]"',
)
FOLDER: Final = click.Path(exists=True, file_okay=False)
LEVELS: Final = ("debug", "info", "warning", "error", "critical")

logger = logging.getLogger("streamq.worker")
C = TypeVar("C", bound=Callable[..., Any])


def queue_weights(spec: str) -> dict[str, int]:
    """The queues of `high:3,default` with their weights. Raises `Stopped`.

    >>> queue_weights("high:3,default")
    {'high': 3, 'default': 1}
    """
    found: dict[str, int] = {}
    for part in spec.split(","):
        name, _, weight = part.strip().rpartition(":") if ":" in part else (part.strip(), "", "1")
        if not name or not (weight.isascii() and weight.isdigit() and int(weight) > 0):
            raise _bad_queues(spec, f"{part.strip()!r} is no queue with a weight")
        if any(each in "{}" or each.isspace() for each in name):
            raise _bad_queues(spec, f"{name!r} cannot name a queue: no spaces and no braces")
        if name in found:
            raise _bad_queues(spec, f"{name!r} is there twice")
        found[name] = int(weight)
    return found


def _bad_queues(spec: str, cause: str) -> Stopped:
    screen = Screen(
        f"the queues {spec!r} cannot be read",
        "--queues, or the variable STREAMQ_QUEUES",
        cause,
        "--queues high:3,default    names, each with a weight of 1 or more",
    )
    return Stopped(screen)


def _queues(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, int] | None:
    return None if value is None else queue_weights(value)


def _option(*names: str, **more: Any) -> Callable[[C], C]:
    # Settings of the application have their variable there, where producers read it too.
    return click.option(*names, envvar=variable(names[-1].lstrip("-").replace("-", "_")), show_envvar=True, **more)


def log_options(command: C) -> C:
    """Add --log-level and --log-format."""
    level, form = click.Choice(LEVELS, case_sensitive=False), click.Choice(["text", "json"])
    for option in (
        _option("--log-format", type=form, default="text", show_default=True, help="On stderr."),
        _option(
            "-l", "--log-level", type=level, default="info", show_default=True, help="Nothing below this is logged."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="MODULE[:APP]", envvar="STREAMQ_APP", required=False)
@_option("-Q", "--queues", metavar="NAME[:WEIGHT],...", callback=_queues, help="Default: all that its tasks name.")
@_option("-c", "--concurrency", type=click.IntRange(1), default=100, show_default=True, help="Jobs at once.")
@_option("--prefetch", type=click.IntRange(0), default=0, show_default=True, help="Jobs held ready beside them.")
@_option(
    "-p",
    "--processes",
    metavar="N|auto",
    callback=quantities.processes,
    default="1",
    show_default=True,
    help="How many; auto: one a core.",
)
@_option("--max-jobs", type=click.IntRange(1), metavar="N", help="Replace a process after about so many jobs.")
@_option(
    "--max-memory",
    metavar="SIZE",
    callback=quantities.memory,
    help="Replace a process that has grown larger, as 500MB.",
)
@_option("--burst", is_flag=True, help="End when the queues are empty.")
@_option("--no-beat", is_flag=True, help="Leave the schedules to other workers, or to streamq beat.")
@click.option("--grace", metavar="DURATION", help="For running jobs, after a stop.  [env var: STREAMQ_GRACE]")
@_option("--loop", type=click.Choice(["uvloop", "asyncio"]), default="uvloop", show_default=True, help="Event loop.")
@log_options
@_option("--name", metavar="NAME", help="Of this worker; default: host, pid and chance.")
@click.option("--url", metavar="URL", help="Redis, whatever the application says.")
@_option("--health-port", type=click.IntRange(0, 65_535), metavar="PORT", help="Serve /livez, /readyz and /metrics.")
@_option("--health-host", metavar="HOST", default="127.0.0.1", show_default=True, help="Where.")
@_option("--reload", is_flag=True, help="Start anew when a Python file changes: for development.")
@_option("--reload-dir", type=FOLDER, multiple=True, help="Watch this folder instead of the current one.")
@click.option("--check", is_flag=True, help="Connect, say what would be served, and end.")
@verbose_option
@click.pass_obj
def worker(
    session: Session,
    /,
    target: str | None,
    *,
    processes: int,
    max_jobs: int | None,
    max_memory: int,
    no_beat: bool,
    loop: str,
    log_level: str,
    log_format: Literal["text", "json"],
    url: str | None,
    health_port: int | None,
    health_host: str,
    reload: bool,
    reload_dir: tuple[str, ...],
    check: bool,
    **settings: Any,
) -> int:
    """Run the jobs of an application.

    \b
      streamq worker shop.jobs:app
      streamq worker shop.jobs               its only application
      streamq worker examples/hello.py:app
      streamq worker shop.jobs -p auto       a process a core

    The first SIGTERM or Ctrl-C lets the running jobs end, the second one cancels them and gives them back. SIGUSR1
    shows what each job is doing. With several processes SIGHUP replaces them one by one, without a gap.
    """
    from streamq.worker.parent import Spec, spec_of_child

    if (child := spec_of_child()) is not None:
        session.verbose = child.verbose
        return serve(child)
    if target is None:
        raise unnamed("the command line", "a worker has to know whose tasks it runs", "streamq worker shop.jobs:app")
    given = {name: value for name, value in settings.items() if value is not None}
    spec = Spec(
        target,
        {**given, "schedules": not no_beat},
        url,
        loop,
        log_level,
        log_format,
        max_jobs or 0,
        max_memory,
        counted=health_port is not None,
        verbose=session.verbose,
        processes=processes,
    )
    if check:
        run_on(loop, _checked(spec))
        return Exit.OK
    folders = reload_dir or (str(Path.cwd()),) if reload else ()
    with _listening(health_host, health_port) as listening:
        if processes > 1 or max_jobs or max_memory or reload:
            return supervise(spec, _environ_of(session), listening, folders)
        return serve(spec, listening)


def serve(spec: Spec, listening: socket.socket | None = None) -> int:
    """Run one worker in this process, to its end; its exit code. Raises `Stopped`, and what ended it."""
    from streamq.worker import log
    from streamq.worker.host import Host

    app = _loaded(spec)
    log.configure(spec.log_level, cast(Literal["text", "json"], spec.log_format))
    if not app.tasks:
        raise Stopped(_no_tasks(spec.target))
    if app.broker.connections.address.private:
        logger.warning("embedded:// without a folder: only this process reaches its server, nobody else can enqueue")

    # What is imported now stays: the collector need not look through it again. And a no-op job makes some twenty
    # objects, so that the usual 700 are reached 1,500 times a second: that was a fifth of the CPU of a drain.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)

    async def run() -> None:
        await Host(app, spec, listening).run()

    run_on(spec.loop, run())
    return Exit.OK


def supervise(spec: Spec, environ: Mapping[str, str], listening: socket.socket | None, folders: Sequence[str]) -> int:
    """Run several workers under this process, to their end; its exit code. Raises `Stopped`."""
    from streamq.worker import log
    from streamq.worker.child import own_command
    from streamq.worker.supervisor import Supervisor

    if folders and importlib.util.find_spec("watchfiles") is None:
        raise Stopped(NO_WATCHFILES)
    log.configure(spec.log_level, cast(Literal["text", "json"], spec.log_format))

    async def run() -> int:
        supervisor = Supervisor(
            spec,
            spec.processes,
            command=own_command(spec.target),
            environ=environ,
            listening=listening,
            folders=folders,
        )
        return await supervisor.run()

    return asyncio.run(run())


def _environ_of(session: Session) -> dict[str, str]:
    # What the project's file has put there is left out: each process reads that file itself, and blames it rightly.
    ours = {variable(name) for name in session.counting}
    return {name: value for name, value in os.environ.items() if name not in ours}


def run_on(loop: str, work: Coroutine[Any, Any, None]) -> None:
    """Run to the end on an event loop of that kind."""
    if loop == "asyncio":
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


def _loaded(spec: Spec) -> StreamQ[Any]:
    app = loaded(spec.target, spec.url, "streamq worker")
    if spec.processes > 1 and app.broker.connections.address.private:
        raise Stopped(_each_its_own(spec))
    return app


def _each_its_own(spec: Spec) -> Screen:
    return Screen(
        f"{spec.processes} processes cannot share embedded://",
        spec.target,
        "each would start a server of its own, and see none of the jobs of the others",
        f"streamq worker {spec.target} -p {spec.processes} --url embedded:///var/lib/my-app    a folder can be shared",
    )


async def _checked(spec: Spec) -> None:
    from streamq.cli.console import show_one

    app = _loaded(spec)
    worker = app.worker(**spec.worker)
    try:
        await app.open(timeout=0)
        facts = app.broker.facts
        assert facts is not None
        show_one(
            {
                "application": spec.target,
                "server": f"{app.broker.where}, version {facts.version or 'unknown'}",
                "namespace": app.options.namespace,
                "queues": ", ".join(f"{name}:{weight}" for name, weight in worker.weights.items()),
                "tasks": ", ".join(sorted(app.tasks)) or "none",
                "schedules": ", ".join(sorted(app.timetable)) or "none" if worker.schedules else "left to others",
                "processes": spec.processes,
                "concurrency": worker.concurrency,
                "grace": f"{worker.grace:g} s",
            },
            None,
        )
    finally:
        await app.close()
    if not app.tasks:
        raise Stopped(_no_tasks(spec.target))


@contextlib.contextmanager
def _listening(host: str, port: int | None) -> Generator[socket.socket | None]:
    from streamq.worker.health import listen

    if port is None:
        yield None
        return
    try:
        opened = listen(host, port)
    except OSError as error:
        raise Stopped(_no_port(host, port, error)) from error
    with opened:
        yield opened


def _no_port(host: str, port: int, error: OSError) -> Screen:
    taken = f"ss -ltnp 'sport = :{port}'    shows who has it; or give another --health-port"
    return Screen(
        f"cannot serve /livez, /readyz and /metrics on {host}:{port}",
        "--health-host and --health-port",
        (error.strerror or str(error)).partition(" (")[0].lower(),
        taken if error.errno == errno.EADDRINUSE else "--health-host 127.0.0.1 --health-port 8080",
    )


def _no_tasks(target: str) -> Screen:
    return Screen(
        f"{target} has no tasks",
        "",
        "the modules that define them are not imported by this one",
        f"import shop.jobs    at the end of the module of {target}",
    )
