"""`python -m benchmarks [--runs 3]`: streamq and the bare pipeline, alternating, fresh server and process a run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

import click

from benchmarks.server import cpu_seconds, fresh_server

NAMES = (
    "floor", "enqueue bulk", "enqueue 100 concurrent", "enqueue sequential", "drain c=32", "drain c=100", "round trip",
)  # fmt: skip
UNITS = {"per_second": "/s", "worker_cpu_us": "us worker CPU a job", "server_cpu_us": "us server CPU a job"}


def once(name: str) -> dict[str, float]:
    """One run of one scenario."""
    with fresh_server() as (url, pid):
        command = [sys.executable, "-m", "benchmarks.scenarios", name]
        done = subprocess.run(command, env=os.environ | {"STREAMQ_URL": url}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout)
        return figures | {"server_cpu_s": cpu_seconds(pid)}


@click.command()
@click.option("--runs", default=3, show_default=True, help="Runs of each scenario.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only these scenarios.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a run, no table.")
def main(runs: int, only: tuple[str, ...], as_json: bool) -> None:
    names = only or NAMES
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for run in range(runs):
        for name in names:
            figures = once(name)
            if as_json:
                print(json.dumps({"run": run, "scenario": name, **figures}), flush=True)
            for unit, figure in figures.items():
                found[name].setdefault(unit, []).append(figure)
    if not as_json:
        table(found)


def table(found: dict[str, dict[str, list[float]]]) -> None:
    """Medians with their spread."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis", "msgspec", "uvloop"))
    print(f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores, {platform.machine()}")
    for name, units in found.items():
        cells = [
            f"{statistics.median(values):,.2f} {UNITS.get(unit, unit)} ({min(values):,.2f} to {max(values):,.2f})"
            for unit, values in units.items()
        ]
        print(f"{name:24} " + " | ".join(cells))


if __name__ == "__main__":
    main()
