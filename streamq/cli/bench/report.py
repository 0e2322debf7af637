"""What was found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from streamq.cli.bench.figures import PROCESSES, Spread, bound, reason
from streamq.cli.bench.run import EMBEDDED, Report

NOTICED: Final = 0.05  # of a core: other clients that use more are mentioned
SHORT: Final = 0.2  # seconds
LEGEND: Final = (
    "(processes: busy, of one core; network: round trips one after the other, of the time;\n"
    " machine: of all its cores, others: by other programs)"
)
RATE: Final = (("", "jobs_per_second", "jobs/s", 0),)
TIMES: Final = ((" p50", "p50_ms", "ms", 2), (" p99", "p99_ms", "ms", 2))


@dataclass(frozen=True, slots=True)
class Row:
    """What a scenario is about: its rate, or one of its times."""

    scenario: str
    name: str
    spread: Spread
    unit: str
    decimals: int

    def shown(self, value: float) -> str:
        """A value without its unit."""
        return f"{value:,.{self.decimals}f}"


def medians(found: dict[str, Spread]) -> dict[str, float]:
    """Figure -> median."""
    return {name: spread.median for name, spread in found.items()}


def rows(report: Report) -> list[Row]:
    """All of them, in order."""
    return [
        Row(scenario, scenario + name, found[key], unit, decimals)
        for scenario, found in report.found.items()
        for name, key, unit, decimals in (TIMES if "p50_ms" in found else RATE)
    ]


def summary(report: Report) -> str:
    """A table, what bounds each scenario, and where all of it was measured."""
    lines = ["", f"{'':<32} {'lowest to highest':<20} {'CPU a job: producer':>19} {'worker':>8} {'server':>8}"]
    for row in rows(report):
        found, spread = report.found[row.scenario], row.spread
        cpu = [_micros(found.get(f"{each}_cpu_us")) for each in PROCESSES]
        spent = "" if row.name.endswith("p99") else f"{cpu[0]:>19} {cpu[1]:>8} {cpu[2]:>8}"
        between = f"{row.shown(spread.lowest)} to {row.shown(spread.highest)}"
        lines.append(f"{row.name:<14} {row.shown(spread.median):>10} {row.unit:<6} {between:<20} {spent}".rstrip())
    lines.append("")
    for name, found in report.found.items():
        lines.append(f"{name:<14} bound by: {bound(medians(found))} ({reason(medians(found))})")
    return "\n".join([*lines, LEGEND, "", *surroundings(report)])


def _micros(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:,.1f} us"


def surroundings(report: Report) -> list[str]:
    """Where and with what it was measured, and what speaks against the figures."""
    plan, server = report.plan, report.server
    lines = [
        f"{server.name} at {server.where}, PING {server.around.ping_ms:.3f} ms; {server.around.cores} cores",
        ", ".join(f"{name} {version}" for name, version in report.software.items()),
        f"jobs: {plan.jobs:,}, at once: {plan.concurrency:,}, runs: {plan.runs}; {report.date}",
    ]
    if any(found["seconds"].median < SHORT for found in report.found.values()):
        lines.append(f"Runs of less than {SHORT:g} s say little: give more --jobs.")
    if server.others is None:
        lines.append("The server does not tell its CPU time (INFO cpu).")
    elif server.others > NOTICED:
        lines.append(f"Others used {server.others:.0%} of a core of the server before; its figures count them.")
    return [*lines, EMBEDDED] if server.embedded else lines


def as_list(report: Report) -> str:
    """A JSON list with one object a scenario, each on a line of its own and complete in itself."""
    return "[\n" + ",\n".join(json.dumps(each) for each in objects(report)) + "\n]"


def objects(report: Report) -> list[dict[str, Any]]:
    """One object a scenario. Shares are parts of one core, of the time (network), of all cores (machine, others)."""
    plan, server = report.plan, report.server
    environment = {
        "date": report.date,
        **report.software,
        "server": server.name,
        "url": server.where,
        "embedded": server.embedded,
        "cores": server.around.cores,
        "ping_ms": server.around.ping_ms,
        "other_clients_share": server.others,
    }
    return [
        {
            "scenario": name,
            "jobs": plan.jobs,
            "concurrency": plan.concurrency,
            "runs": plan.runs,
            "figures": {key: asdict(spread) for key, spread in found.items()},
            "bound": bound(medians(found)),
            "reason": reason(medians(found)),
            "environment": environment,
        }
        for name, found in report.found.items()
    ]
