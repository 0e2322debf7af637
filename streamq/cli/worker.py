"""`streamq worker`: one process that runs the jobs of an application."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

import click

from streamq.cli.exits import Screen, Stopped
from streamq.cli.main import verbose_option

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


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


def _option(*names: str, **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # Settings of the application have their variable there, where producers read it too.
    variable = f"STREAMQ_{names[-1].lstrip('-').upper().replace('-', '_')}"
    return click.option(*names, envvar=variable, show_envvar=True, **more)


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@_option("-Q", "--queues", metavar="NAME[:WEIGHT],...", callback=_queues, help="Default: all that its tasks name.")
@_option("-c", "--concurrency", type=click.IntRange(1), default=100, show_default=True, help="Jobs at once.")
@_option("--prefetch", type=click.IntRange(0), default=0, show_default=True, help="Jobs held ready beside them.")
@_option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--grace", metavar="DURATION", help="For running jobs, after a stop.  [env var: STREAMQ_GRACE]")
@_option("--loop", type=click.Choice(["uvloop", "asyncio"]), default="uvloop", show_default=True, help="Event loop.")
@_option("-l", "--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@_option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="On stderr.")
@_option("--name", metavar="NAME", help="Of this worker; default: host, pid and chance.")
@click.option("--url", metavar="URL", help="Redis, whatever the application says.")
@verbose_option
def worker(
    target: str,
    *,
    loop: str,
    log_level: str,
    log_format: Literal["text", "json"],
    url: str | None,
    **settings: Any,
) -> None:
    """Run the jobs of an application, in this process.

    \b
      streamq worker shop.jobs:app
      streamq worker shop.jobs               its only application
      streamq worker examples/hello.py:app

    The first SIGTERM or Ctrl-C lets the running jobs end, the second one cancels them and gives them back.
    """
    from streamq.cli.loading import load_app
    from streamq.worker import log

    if url is not None:
        os.environ["STREAMQ_URL"] = url
    app = load_app(target)
    log.configure(log_level, log_format)
    if url is not None:
        app.link.redirect(url)
    if not app.tasks:
        raise Stopped(_no_tasks(target))

    # What is imported now stays: the collector need not look through it again. And a no-op job makes some twenty
    # objects, so that the usual 700 are reached 1,500 times a second: that was a fifth of the CPU of a drain.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)

    async def run() -> None:
        try:
            await app.worker(handle_signals=True, **settings).run()
        finally:
            await app.close()

    run_on(loop, run())


def run_on(loop: str, work: Coroutine[Any, Any, None]) -> None:
    """Run to the end on an event loop of that kind."""
    if loop == "asyncio":
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


def _no_tasks(target: str) -> Screen:
    return Screen(
        f"{target} has no tasks",
        "",
        "the modules that define them are not imported by this one",
        f"import shop.jobs    at the end of the module of {target}",
    )
