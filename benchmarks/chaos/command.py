"""`python -m benchmarks chaos` plays the kills and writes a JSON line a run; `chaos-report` makes the table of them."""

from __future__ import annotations

import json
import os
import platform
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.chaos.peers import NAMES
from benchmarks.environments import CACHE, Contender, Environment, prepare
from benchmarks.processes import Failure
from benchmarks.server import server_version

RESULTS = Path(__file__).parents[1] / "results"
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Of each run.")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="Once or more.  [default: chance]")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Default: all.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: results/chaos-DATE.jsonl.")
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True, help="Environments.")
def chaos(*, minutes: float, seeds: tuple[int, ...], only: tuple[str, ...], out: Path | None, cache: Path) -> None:
    """Kill workers of each queue by the same schedules; see what was lost and what ran twice."""
    from benchmarks.chaos.drive import Plan

    plan = Plan(minutes * 60)
    seeds = seeds or (random.randrange(10**6),)
    environments = {name: prepare(Contender.read(name), cache) for name in only or NAMES}
    out = out or RESULTS / f"chaos-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    total = len(seeds) * len(environments)
    click.echo(f"{total} runs of {minutes:g} minutes, writing {out}")
    with out.open("a") as file:
        print(json.dumps({"environment": _described(plan, environments)}), file=file, flush=True)
        for number, record in enumerate(_records(plan, seeds, environments), 1):
            print(json.dumps(record), file=file, flush=True)
            click.echo(f"[{number}/{total}] " + ", ".join(f"{name} {value}" for name, value in record.items()))


@click.command(name="chaos-report")
@click.argument("files", nargs=-1, required=True, type=FILE)
def chaos_report(files: tuple[Path, ...]) -> None:
    """Make the table in docs/reliability.md, and what `streamq chaos --compare` shows, of what `chaos` wrote."""
    from benchmarks.chaos.report import main as write

    try:
        click.echo(write(files))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _records(plan: Any, seeds: tuple[int, ...], environments: dict[str, Environment]) -> Iterator[dict[str, Any]]:
    """Of each seed every queue, in another order each time."""
    import msgspec

    from benchmarks.chaos.drive import strike

    for seed in seeds:
        for name in random.Random(seed).sample(list(environments), len(environments)):
            try:
                yield msgspec.to_builtins(strike(environments[name], plan, seed))
            except Failure as failure:
                yield {"name": name, "seed": seed, "error": str(failure)}


def _described(plan: Any, environments: dict[str, Environment]) -> dict[str, Any]:
    from benchmarks.chaos import drive

    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}" + (f", {cpu[1]}" if cpu else ""),
        "cores": len(os.sched_getaffinity(0)),
        "server": server_version(),
        "versions": {name: each.versions() for name, each in environments.items()},
        "settings": {name: drive.settings_of(name) for name in environments},
        "plan": {
            "seconds": plan.seconds,
            "workers": plan.workers,
            "concurrency": plan.concurrency,
            "lease": plan.lease,
            "rate": drive.RATE,
            "waited": plan.waited,
        },
    }
