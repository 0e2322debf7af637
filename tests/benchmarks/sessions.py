"""Sessions of runs as the harness writes them, and a look at the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import NAMES

NO_RESULTS = {"raw", "hiredis", "taskiq_streams", "taskiq_list"}

Line = dict[str, Any]
Write = Callable[[Sequence[Line]], Path]
Report = Callable[..., str]


def environment(**other: Any) -> Line:
    return {
        "environment": {
            "date": "2026-11-22T03:00:00+00:00",
            "python": "3.11.7",
            "machine": "Linux x86_64, Xeon",
            "cores": 2,
            "server": "redis-server 7.0.15",
            "versions": {name: {name: "1.2.3"} for name in NAMES},
            "settings": {"arq": "poll 5 ms | see its page"},
            "results": {name: name not in NO_RESULTS for name in NAMES},
            "seed": 7,
        }
        | other
    }


def run(scenario: str, contender: str, *rates: float, figure: str = "per_second", jobs: int = 20_000) -> list[Line]:
    """A line for each rate."""
    return [
        {"scenario": scenario, "contender": contender, "run": index, "jobs": jobs, "figures": {figure: rate}}
        for index, rate in enumerate(rates)
    ]


def failed(scenario: str, contender: str, error: str, index: int = 0) -> Line:
    return {"scenario": scenario, "contender": contender, "run": index, "error": error}


def rows(page: str, beginning: str) -> list[list[str]]:
    """Cells of the table rows that begin so."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.splitlines()
        if line.startswith(f"| {beginning}")
    ]


def row(page: str, beginning: str) -> list[str]:
    (found,) = rows(page, beginning)
    return found
