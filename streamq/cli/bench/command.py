"""`streamq bench`: how fast streamq is on a server of yours, and what keeps it from being faster."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from streamq.cli.main import verbose_option
from streamq.cli.project import forget

SCENARIOS: Final = ("enqueue", "bulk", "drain", "round-trip")


def _option(*names: str, **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    long = next(name for name in names if name.startswith("--"))
    return click.option(*names, envvar=f"STREAMQ_BENCH_{long.removeprefix('--').upper()}", show_envvar=True, **more)


def _writable(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Before the measurement, not after it."""
    if path is not None and not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise click.BadParameter(f"{str(path)!r} cannot be written.")
    return path


@click.command()
@click.option(
    "--url", metavar="URL", envvar="STREAMQ_URL", show_envvar=True, help="Redis; by default an embedded server."
)
@_option("--jobs", type=click.IntRange(1), default=20_000, show_default=True, help="Of each run.")
@_option("-c", "--concurrency", type=click.IntRange(1), default=100, show_default=True, help="Jobs at once.")
@_option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of each scenario, in turn.")
@_option("--scenario", "scenarios", multiple=True, type=click.Choice(SCENARIOS), help="Default: all.")
@_option("--json", "as_json", is_flag=True, help="A list with one object for each scenario.")
@_option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_writable,
    metavar="FILE.svg",
    help="Draw a chart, too.",
)
@verbose_option
def bench(
    url: str | None,
    jobs: int,
    concurrency: int,
    runs: int,
    scenarios: tuple[str, ...],
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure streamq on a server, and say what bounds it.

    \b
      enqueue     single enqueues, from as many coroutines as --concurrency says
      bulk        enqueue_many, 500 jobs a round trip
      drain       queued jobs in one worker process, until none is left
      round-trip  one job at a time, enqueue to result (at most 1,000, and 10 s)

    The jobs add two numbers; results, leases and fences are on, and all settings are the defaults, whatever STREAMQ_*
    and streamq.toml say. The producer is this process. All is done in a namespace of its own, which is deleted at the
    end, after Ctrl-C too: it is safe on a server in use, which it keeps busy meanwhile. Without a URL it measures the
    embedded server, whose figures are not for publication.

    What bounds a scenario: a process that is busy for more than 85 % of one core, the busiest if there are several;
    else the network, if round trips one after the other (their number times the median PING) are half of the time or
    more; else the machine, if its cores are busy for more than 85 % with this and whatever else runs there; else
    waiting: nothing is busy, the processes wait for each other.
    """
    forget()  # what is measured is the same everywhere
    os.environ["STREAMQ_URL"] = url or "embedded://"
    os.environ["STREAMQ_NAMESPACE"] = f"streamq-bench-{secrets.token_hex(4)}"

    from streamq.cli.bench.plot import chart
    from streamq.cli.bench.report import as_list, summary
    from streamq.cli.bench.run import Plan, play
    from streamq.cli.bench.screen import Progress

    plan = Plan(jobs, concurrency, runs, tuple(name for name in SCENARIOS if name in (scenarios or SCENARIOS)))
    report = play(plan, Progress(plan.steps, sys.stderr))
    click.echo(as_list(report) if as_json else summary(report))
    if plot is not None:
        plot.write_text(chart(report), encoding="utf-8")
