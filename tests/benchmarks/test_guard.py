"""The guard: what a verdict says, what is written, and that a job that became dearer is found on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.budget import ACCEPT, BUDGETS, MARGINS, SHARED, Budgets, accept, judge, read, write
from benchmarks.guard import CASES, PYTHON, run

SLACK = {"drain": 0.0}


def verdict(cost: float, budget: float, figure: str = "calls") -> tuple[str, bool, str]:
    (found,) = judge({"drain": {figure: cost}}, SLACK, {"any": {"drain": {figure: budget}}, "3.11": {}}, "3.11")
    return found.word, found.failed, found.advice


def test_over_its_budget_a_figure_says_how_much_and_what_to_type() -> None:
    word, failed, advice = verdict(0.0264, 0.022, "round_trips")
    assert (word, failed) == ("OVER", True)
    assert advice == (
        "drain, round_trips: 0.0264 a job is 0.0044, 20.0% more than its budget of 0.022. "
        "If that is meant: python -m benchmarks guard --write"
    )


def test_a_budget_of_nothing_can_be_overrun() -> None:
    word, failed, advice = verdict(1.0, 0.0, "tasks")
    assert (word, failed) == ("OVER", True)
    assert "1 a job is 1 more than its budget of 0." in advice


@pytest.mark.parametrize("cost", [0.022, 0.0212, 0.019])
def test_within_its_budget_nothing_is_said(cost: float) -> None:
    assert verdict(cost, 0.022, "round_trips") == ("ok", False, "")


def test_well_below_its_budget_a_figure_is_pointed_out_and_passes() -> None:
    word, failed, advice = verdict(0.016, 0.022, "round_trips")
    assert (word, failed) == ("well below", False)
    assert "a budget of 0.022" in advice
    assert advice.endswith(ACCEPT)


def test_a_figure_without_a_budget_fails() -> None:
    word, failed, advice = verdict(5.0, 9.0)  # the budget is another Python's group, which has no calls
    assert (word, failed) == ("missing", True)
    assert "drain, calls: 5 a job has no budget" in advice


def test_allocations_belong_to_a_python_and_an_unknown_one_gets_the_largest() -> None:
    budgets: Budgets = {"any": {}, "3.11": {"drain": {"allocations": 10}}, "3.12": {"drain": {"allocations": 20}}}
    given = {
        python: [each.budget for each in judge({"drain": {"allocations": 15}}, SLACK, budgets, python)]
        for python in ("3.11", "3.12", "3.14")
    }
    assert given == {"3.11": [10], "3.12": [20], "3.14": [20]}


def test_accepting_gives_a_margin_and_leaves_other_pythons_alone(tmp_path: Path) -> None:
    other = {"drain": {"allocations": 20.0, "calls": 7.0}}
    before: Budgets = {"any": {"gone": {"tasks": 1.0}}, "3.12": other}
    costs = {"drain": {"round_trips": 0.02, "tasks": 0.0, "allocations": 100.0}}
    write(tmp_path / "budget.toml", accept(costs, {"drain": 0.001}, before, "3.11"))
    assert read(tmp_path / "budget.toml") == {
        "any": {"drain": {"round_trips": 0.0234, "tasks": 0.001}},
        "3.11": {"drain": {"allocations": 105}},
        "3.12": other,
    }


def test_every_case_has_its_budgets() -> None:
    budgets = read(BUDGETS)
    for group, costs in budgets.items():
        figures = SHARED if group == "any" else MARGINS.keys() - SHARED
        assert {case: set(each) for case, each in costs.items()} == {case.name: figures for case in CASES}
    assert {"any", "3.11", "3.12", "3.13"} <= budgets.keys()


def test_what_a_real_job_costs_is_held_against_the_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, smallest = tmp_path / "budget.toml", CASES[:1]
    assert run(path=path, cases=smallest) == 1  # there is no budget yet
    assert run(accepted=True, path=path, cases=smallest) == 0
    budgets = read(path)
    capsys.readouterr()

    assert run(path=path, cases=smallest) == 0
    assert capsys.readouterr().err == ""

    budgets["any"]["enqueue_one_by_one"]["round_trips"] = 0.5
    budgets[PYTHON]["enqueue_one_by_one"]["allocations"] *= 0.5
    write(path, budgets)
    assert run(path=path, cases=smallest) == 1
    trips, allocations = capsys.readouterr().err.splitlines()
    assert trips.startswith("enqueue_one_by_one, round_trips: 1 a job is 0.5, 100.0% more than its budget of 0.5.")
    assert allocations.startswith("enqueue_one_by_one, allocations: ")
    assert allocations.endswith("If that is meant: python -m benchmarks guard --write")
