"""`python -m benchmarks run|compare|report|prepare|guard|chaos|chaos-report`: see README.md in this folder."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import signal
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from benchmarks.chaos.command import chaos, chaos_report
from benchmarks.contenders import NAMES
from benchmarks.environments import CACHE, Contender, Environment, prepare
from benchmarks.plan import Plan, Record
from benchmarks.processes import Failure
from benchmarks.scenarios import SCENARIOS
from benchmarks.server import server_version

Options = Callable[[Callable[..., None]], Callable[..., None]]


def _several(*options: Options) -> Options:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


CACHE_OPTION = click.option(
    "--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True, help="Folder of the environments."
)
COMMON = _several(
    click.option("--scenario", "scenarios", multiple=True, type=click.Choice(list(SCENARIOS)), help="Default: all."),
    click.option("--runs", type=click.IntRange(1), default=5, help="Of each scenario.  [default: 5; 1 with --quick]"),
    click.option("--seed", type=int, default=lambda: random.randrange(10**6), help="Of the order.  [default: chance]"),
    click.option("--jobs", type=click.IntRange(1), hidden=True, default=None),
    CACHE_OPTION,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Measure streamq and its peers: a fresh redis-server and fresh processes for each run."""
    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C: what was started is ended
    signal.signal(signal.SIGHUP, _leave)


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


@main.command()
@click.option("--quick", is_flag=True, help="One run of the core scenarios with half of the jobs: within ten minutes.")
@click.option("--contender", "contenders", multiple=True, type=click.Choice(NAMES), help="Default: all.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: bench-DATE.jsonl, here.")
@COMMON
@click.pass_context
def run(
    context: click.Context,
    *,
    quick: bool,
    contenders: tuple[str, ...],
    out: Path | None,
    scenarios: tuple[str, ...],
    runs: int,
    seed: int,
    jobs: int | None,
    cache: Path,
) -> None:
    """Measure, and write a JSON line a run."""
    if quick and context.get_parameter_source("runs") is click.core.ParameterSource.DEFAULT:
        runs = 1
    chosen = scenarios or tuple(name for name, each in SCENARIOS.items() if each.core or not quick)
    plan = Plan(_environments(contenders or NAMES, cache), chosen, runs, seed, quick, jobs or 0)
    out = out or Path(f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl")
    click.echo(f"seed {seed}, writing {out}")
    with out.open("w") as file:
        print(json.dumps({"environment": _describe(plan)}), file=file, flush=True)
        for record in _followed(plan):
            print(json.dumps(record), file=file, flush=True)


@main.command()
@click.argument("first", metavar="A", type=click.Choice(NAMES))
@click.argument("second", metavar="B", type=click.Choice(NAMES))
@COMMON
def compare(
    *, first: str, second: str, scenarios: tuple[str, ...], runs: int, seed: int, jobs: int | None, cache: Path
) -> None:
    """Measure two contenders; print medians, spread, ratio."""
    both = [name for name, each in SCENARIOS.items() if {first, second} <= set(each.contenders)]
    plan = Plan(_environments((first, second), cache), scenarios or both, runs, seed, limit=jobs or 0)
    click.echo(f"seed {seed}")
    click.echo(table(first, second, list(_followed(plan))))


@main.command(name="prepare")
@click.option("--contender", "contenders", multiple=True, type=click.Choice(NAMES), help="Default: all.")
@CACHE_OPTION
@click.pass_context
def prepare_all(context: click.Context, *, contenders: tuple[str, ...], cache: Path) -> None:
    """Build the environments of all contenders."""
    found = _environments(contenders or NAMES, cache)
    for name, environment in found.items():
        if isinstance(environment, Environment):
            versions = ", ".join(f"{package} {version}" for package, version in environment.versions().items())
            click.echo(f"{name:15} {environment.folder or 'this interpreter'}: {versions}")
    if any(isinstance(environment, Failure) for environment in found.values()):
        context.exit(1)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def report(files: tuple[Path, ...]) -> None:
    """Make tables and plots of what `run` has written."""
    from benchmarks.report import main as write

    try:
        write(files)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--write", is_flag=True, help="Accept what is counted: rewrite budget.toml.")
@click.pass_context
def guard(context: click.Context, *, write: bool) -> None:
    """Count what a job costs, and hold it against the budgets."""
    from benchmarks.guard import run as count

    context.exit(count(accepted=write))


main.add_command(chaos)
main.add_command(chaos_report)


def _environments(names: Sequence[str], cache: Path) -> dict[str, Environment | Failure]:
    found: dict[str, Environment | Failure] = {}
    for name in names:
        try:
            found[name] = prepare(Contender.read(name), cache)
        except Failure as failure:
            click.echo(f"{name}: {failure}", err=True)
            found[name] = failure
    return found


def _describe(plan: Plan) -> dict[str, Any]:
    there = {name: each for name, each in plan.environments.items() if isinstance(each, Environment)}
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}" + (f", {cpu[1]}" if cpu else ""),
        "cores": len(os.sched_getaffinity(0)),
        "server": server_version(),
        "versions": {name: each.versions() for name, each in there.items()},
        "settings": {name: each.contender.settings for name, each in there.items()},
        "results": {name: each.contender.results for name, each in there.items()},
        "seed": plan.seed,
        "quick": plan.quick,
    }


def _followed(plan: Plan) -> Iterator[Record]:
    """The records, each with a line on the terminal."""
    total = len(plan.steps())
    for number, (record, ahead) in enumerate(plan.records(), 1):
        if "error" in record:
            said = "FAILED: " + record["error"]
        else:
            said = ", ".join(f"{name} {_number(value)}" for name, value in record["figures"].items())
        left = f"{ahead / 60:.0f} min left" if ahead > 90 else f"{ahead:.0f} s left"
        click.echo(f"[{number}/{total}, {left}] {record['scenario']} {record['contender']} #{record['run']}: {said}")
        yield record


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


Samples = dict[tuple[str, str], dict[str, list[float]]]


def table(first: str, second: str, records: Iterable[Record]) -> str:
    """Medians with the range of the runs, and first : second."""
    found: Samples = {}
    failed: list[str] = []
    for record in records:
        for figure, value in record.get("figures", {}).items():
            found.setdefault((record["scenario"], figure), {}).setdefault(record["contender"], []).append(value)
        if "error" in record:
            failed.append(f"{record['scenario']} {record['contender']}: {record['error'].splitlines()[0]}")
    lines = [f"{'scenario':20} {'figure':20} {first:>30} {second:>30} {'ratio':>8}"]
    for (scenario, figure), by_name in found.items():
        cells = " ".join(f"{_spread(by_name.get(name)):>30}" for name in (first, second))
        lines.append(f"{scenario:20} {figure:20} {cells} {_ratio(by_name.get(first), by_name.get(second)):>8}")
    return "\n".join([*lines, *(f"FAILED {each}" for each in dict.fromkeys(failed))])


def _spread(values: list[float] | None) -> str:
    if not values:
        return "-"
    return f"{_number(statistics.median(values))} ({_number(min(values))} to {_number(max(values))})"


def _ratio(first: list[float] | None, second: list[float] | None) -> str:
    below = statistics.median(second) if second else 0.0
    return f"{statistics.median(first) / below:.2f}" if first and below else "-"


if __name__ == "__main__":
    main()
