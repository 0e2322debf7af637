"""What a job may cost: the budgets in budget.toml, and the verdict on what was counted."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

BUDGETS = Path(__file__).with_name("budget.toml")
# On a busy machine turns leave less full: the same jobs take a tenth more round trips, and more commands with them.
MARGINS = {"round_trips": 0.12, "server_commands": 0.05, "tasks": 0.02, "allocations": 0.05, "calls": 0.03}
ANY = "any"  # Python; allocations and calls differ from one minor version to the next
SHARED = {"round_trips", "server_commands", "tasks"}
LOOSE = 0.15  # a budget that could be so much smaller has been left behind
ACCEPT = "python -m benchmarks guard --write"

Costs = dict[str, dict[str, float]]  # case -> figure -> a job
Budgets = dict[str, Costs]  # ANY or "3.11" -> the same


class Verdict(NamedTuple):
    """One figure of one case beside its budget, and beside the one that `--write` would give it."""

    case: str
    figure: str
    cost: float
    fresh: float
    budget: float | None

    @property
    def word(self) -> str:
        """`missing` and `OVER` are failures."""
        if self.budget is None:
            return "missing"
        if self.cost > self.budget:
            return "OVER"
        return "well below" if self.fresh < (1 - LOOSE) * self.budget else "ok"

    @property
    def failed(self) -> bool:
        """Whether somebody has to do something."""
        return self.word in ("missing", "OVER")

    @property
    def advice(self) -> str:
        """What happened and what to type; empty if all is well."""
        what = f"{self.case}, {self.figure}: {number(self.cost)} a job"
        match self.word:
            case "OVER":
                assert self.budget is not None
                share = f", {self.cost / self.budget - 1:.1%}" if self.budget > self.cost / 10 else ""
                more = f"{number(self.cost - self.budget)}{share}"
                return f"{what} is {more} more than its budget of {number(self.budget)}. If that is meant: {ACCEPT}"
            case "missing":
                return f"{what} has no budget. Give it one: {ACCEPT}"
            case "well below":
                assert self.budget is not None
                return f"{what}, and a budget of {number(self.budget)}. Let the budget follow: {ACCEPT}"
            case _:
                return ""


def number(value: float) -> str:
    """Four significant digits: 1.061, 34, 951.4."""
    return f"{value:.4g}"


def fresh(cost: float, figure: str, slack: float) -> float:
    """The budget of what costs so much; `slack` is what chance may add to a job, of the figures it adds to."""
    return cost * (1 + MARGINS[figure]) + (slack if figure in SHARED else 0)


def judge(costs: Costs, slack: Mapping[str, float], budgets: Budgets, python: str) -> Iterator[Verdict]:
    """A verdict for each figure; `slack` by case, `python` as "3.11"."""
    for case, figures in costs.items():
        for figure, cost in figures.items():
            budget = _budget(budgets, python, case, figure)
            yield Verdict(case, figure, cost, fresh(cost, figure, slack[case]), budget)


def _budget(budgets: Budgets, python: str, case: str, figure: str) -> float | None:
    """On a Python that nobody has measured on, the largest of the others."""
    groups = [ANY] if figure in SHARED else [python] if python in budgets else [each for each in budgets if each != ANY]
    found = [budgets[group][case][figure] for group in groups if figure in budgets.get(group, {}).get(case, {})]
    return max(found, default=None)


def accept(costs: Costs, slack: Mapping[str, float], budgets: Budgets, python: str) -> Budgets:
    """The budgets with what was counted on this Python; those of the others stay."""
    new: Budgets = {ANY: {}, python: {}}
    for each in judge(costs, slack, budgets, python):
        new[ANY if each.figure in SHARED else python].setdefault(each.case, {})[each.figure] = each.fresh
    return {**budgets, **new}


def read(path: Path) -> Budgets:
    """Empty if there is no such file."""
    budgets: Budgets = tomllib.loads(path.read_text()) if path.exists() else {}
    return budgets


def write(path: Path, budgets: Budgets) -> None:
    """Replace the file."""
    lines = [f"# What a job may cost. Written by `{ACCEPT}`, on each Python that has a part here."]
    for group in sorted(budgets, key=lambda group: (group != ANY, group)):
        for case, figures in budgets[group].items():
            lines += ["", f'["{group}".{case}]', *(f"{figure} = {number(each)}" for figure, each in figures.items())]
    path.write_text("\n".join(lines) + "\n")
