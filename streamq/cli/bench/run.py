"""The measurement from the first look at the server to its last key: all runs of all scenarios, in turn."""

from __future__ import annotations

import asyncio
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import uvloop

from streamq import __version__
from streamq.cli.bench.figures import Figures, Spread, figures
from streamq.cli.bench.scenarios import RUNS, Stage
from streamq.cli.bench.screen import Progress
from streamq.cli.bench.server import BYTES_A_JOB, Server, look, sweep
from streamq.cli.bench.tasks import app

NOHUP: Final = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
STOPS: Final = (signal.SIGINT, signal.SIGTERM, *(() if NOHUP else (signal.SIGHUP,)))
PACKAGES: Final = {"redis-py": "redis", "hiredis": "hiredis", "uvloop": "uvloop"}
EMBEDDED: Final = "This is the embedded server, which is not for published figures: give --url or set STREAMQ_URL."


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    jobs: int
    concurrency: int
    runs: int
    scenarios: tuple[str, ...]

    @property
    def steps(self) -> int:
        """How many runs in all."""
        return self.runs * len(self.scenarios)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: scenario -> figure -> its spread."""

    plan: Plan
    server: Server
    software: dict[str, str]
    date: str
    found: dict[str, dict[str, Spread]]


def play(plan: Plan, progress: Progress) -> Report:
    """Measure, on an event loop of its own. What streamq raises is raised."""
    try:
        return uvloop.run(_measured(plan, progress))
    except asyncio.CancelledError:
        progress.say("Stopped. Nothing is left on the server.")
        raise KeyboardInterrupt from None


async def _measured(plan: Plan, progress: Progress) -> Report:
    this = asyncio.current_task()
    assert this is not None
    _on_signals(lambda: this.cancelling() or this.cancel())
    try:
        await app.open(timeout=0)
        server = await look(plan.jobs)
        progress.say(announcement(plan, server))
        try:
            with progress.shown():
                found = await _all_runs(plan, server, progress)
        finally:
            _on_signals(lambda: None)  # an impatient second Ctrl-C must not end the cleaning
            await sweep()
    finally:
        await app.close()
    return Report(
        plan, server, _software(), datetime.now(UTC).isoformat(timespec="seconds"),
        {name: _spread([each[name] for each in found]) for name in plan.scenarios},
    )  # fmt: skip


def _on_signals(act: Callable[[], object]) -> None:
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, act)


async def _all_runs(plan: Plan, server: Server, progress: Progress) -> list[dict[str, Figures]]:
    found: list[dict[str, Figures]] = []
    for run in range(1, plan.runs + 1):
        found.append({})
        for name in plan.scenarios:
            stage = Stage(plan.jobs, plan.concurrency)
            async with progress.following(f"{name} {run} of {plan.runs}", stage) as tell:
                seen = await RUNS[name].run(stage)
                found[-1][name] = figures(seen, RUNS[name].trips(plan.concurrency), server.around)
                tell(_said(found[-1][name]))
    return found


def _said(found: Figures) -> str:
    return f"{found['p50_ms']:.2f} ms" if "p50_ms" in found else f"{found['jobs_per_second']:,.0f} jobs/s"


def _spread(runs: list[Figures]) -> dict[str, Spread]:
    """Of the figures that every run has."""
    return {name: Spread.of([run[name] for run in runs]) for name in runs[0] if all(name in run for run in runs)}


def announcement(plan: Plan, server: Server) -> str:
    """What will happen, before it does."""
    lines = [
        f"{server.name} at {server.where}: {', '.join(plan.scenarios)}, {plan.runs} x {plan.jobs:,} jobs each.",
        f"At most about {max(0.1, plan.jobs * BYTES_A_JOB / 1e6):,.1f} MB at a time, in the namespace "
        f"{app.options.namespace}, which is deleted at the end.",
    ]
    if server.embedded:
        lines.append(EMBEDDED)
    return "\n".join(lines)


def _software() -> dict[str, str]:
    packages = {name: version(package) for name, package in PACKAGES.items()}
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {"python": python, "streamq": __version__, **packages, "machine": f"{sys.platform} {platform.machine()}"}
