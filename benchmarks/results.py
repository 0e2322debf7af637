"""What `run` has written, read again: sessions of runs, and medians of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.contenders import NAMES

LIMITS = frozenset({"raw", "hiredis"})  # no queues: the bare calls, as yardsticks
HIGHER = frozenset({"per_second", "part_of_ideal"})  # figures of which more is better


class Environment(msgspec.Struct, frozen=True):
    """What the first line of a file says."""

    date: str = "an unknown date"
    python: str = "?"
    machine: str = "an unknown machine"
    cores: int = 0
    server: str = "an unknown server"
    seed: int | None = None
    quick: bool = False
    versions: Mapping[str, Mapping[str, str]] = {}
    settings: Mapping[str, str] = {}
    results: Mapping[str, bool] = {}


class Run(msgspec.Struct, frozen=True):
    """One run of one contender: figures, or why there are none."""

    scenario: str
    contender: str
    run: int = 0
    jobs: int = 0
    figures: Mapping[str, float] = {}
    error: str = ""


@dataclass(frozen=True)
class Spread:
    """Median and range of the runs."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Session:
    """The runs under one environment: only these may be divided by each other."""

    environment: Environment
    runs: list[Run] = field(default_factory=list)

    def spread(self, scenario: str, contender: str, figure: str) -> Spread | None:
        return spread(self.runs, scenario, contender, figure)


def spread(runs: Iterable[Run], scenario: str, contender: str, figure: str) -> Spread | None:
    """None if it was not measured."""
    found = [
        each.figures[figure]
        for each in runs
        if each.scenario == scenario and each.contender == contender and figure in each.figures
    ]
    return Spread(statistics.median(found), min(found), max(found), len(found)) if found else None


@dataclass(frozen=True)
class Results:
    """Everything that was read."""

    sessions: Sequence[Session]

    @property
    def runs(self) -> list[Run]:
        return [run for session in self.sessions for run in session.runs]

    @property
    def contenders(self) -> list[str]:
        """All that were to be measured, in the order of the contenders."""
        described = (name for session in self.sessions for name in session.environment.versions)
        return in_order([*described, *(run.contender for run in self.runs)])

    def stored(self, contender: str) -> bool:
        """Whether it stores results, in every session that describes it."""
        said = [each.environment.results.get(contender) for each in self.sessions]
        return set(said) - {None} == {True}

    def spread(self, scenario: str, contender: str, figure: str) -> Spread | None:
        return spread(self.runs, scenario, contender, figure)


def in_order(contenders: Iterable[str]) -> list[str]:
    """Each once, in the order of the contenders; strangers last."""
    return sorted(set(contenders), key=lambda name: (NAMES.index(name) if name in NAMES else len(NAMES), name))


def read(paths: Sequence[Path]) -> Results:
    """Raises ValueError with file and line if a line is not what `run` writes."""
    return Results([session for path in paths for session in _sessions(path)])


def _sessions(path: Path) -> list[Session]:
    found: list[Session] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = msgspec.json.decode(line, type=dict[str, object])
            if "environment" in values:
                found.append(Session(msgspec.convert(values["environment"], Environment)))
            elif found:
                found[-1].runs.append(msgspec.convert(values, Run))
            else:
                raise ValueError("a run before the environment")
        except ValueError as error:  # those of msgspec among them
            raise ValueError(f"{path}:{number}: {error}") from error
    return found


def number(value: float) -> str:
    """Three significant digits, thousands separated: 34,400 or 1.07."""
    rounded = float(f"{value:.2e}")
    digits = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(digits, 0)}f}"
