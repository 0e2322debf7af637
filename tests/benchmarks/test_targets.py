"""The table of targets: against whom, how far, and in which session."""

from __future__ import annotations

import pytest

from benchmarks.catalogue import GROUPS, SCALES
from benchmarks.contenders import NAMES
from benchmarks.results import read
from benchmarks.scenarios import SCENARIOS
from benchmarks.targets import PEER, PYTHON, TARGETS, Measured, Target, measure, verdict
from tests.benchmarks.sessions import Report, Write, environment, row, rows, run


def test_ratio_and_best_python_peer(report: Report) -> None:
    session = [
        environment(),
        *run("drain_32", "streamq", 30_000),
        *run("drain_100", "streamq", 40_000, 44_000, 10_000),
        *run("drain_100", "saq", 1_900),
        *run("drain_32", "saq", 2_000),
        *run("drain_100", "arq", 1_990),
        *(line for name in ("raw", "hiredis", "bullmq") for line in run("drain_100", name, 80_000)),
        *run("drain_32", "taskiq_list", 3_000),  # stores no results
        *run("end_to_end", "streamq", 10_000),
        *run("end_to_end", "saq", 1_000),
        *run("end_to_end", "arq", 1_250),
    ]
    best, bullmq, raw = rows(report(session), "drain, best")
    bars = ["≥ 15 x", "≥ 25 x"]
    assert best[1:] == ["the best Python peer: saq", "40,000/s", "2,000/s", "20.0 x", *bars, "**first bar**"]
    assert bullmq[1:] == ["bullmq", "40,000/s", "80,000/s", "0.500 x", "≥ 2 x", "≥ 3 x", "**missed by 75.0 %**"]
    assert raw[-1] == "**met**"
    assert rows(report(session), "end to end")[0][1:5] == ["the best Python peer: arq", "10,000/s", "1,250/s", "8.00 x"]


def test_the_best_peer_is_any_queue_and_of_each_figure(report: Report) -> None:
    figures = {"streamq": (0.6, 1.5), "taskiq_list": (0.8, 1.9), "bullmq": (1.2, 1.6), "raw": (0.4, 0.5)}
    lines = [
        {"scenario": "latency", "contender": name, "run": 0, "jobs": 500, "figures": {"p50_ms": p50, "p99_ms": p99}}
        for name, (p50, p99) in figures.items()
    ]
    page = report([environment(), *lines])
    heads = ["≤ 1 x", "≤ 0.8 x"]
    assert row(page, "start latency p50")[1:] == [
        "the best peer: taskiq_list", "0.600 ms", "0.800 ms", "0.750 x", *heads, "**met**",
    ]  # fmt: skip
    assert row(page, "start latency p99")[1:5] == ["the best peer: bullmq", "1.50 ms", "1.60 ms", "0.938 x"]


def test_targets_against_streamq_itself_and_of_a_figure(report: Report) -> None:
    page = report(
        [
            environment(),
            *run("growth_10k", "streamq", 40_000),
            *run("growth_1m", "streamq", 38_000),
            *run("memory", "streamq", 210, figure="bytes_queued"),
        ]
    )
    assert row(page, "first jobs of 1,000,000")[1:5] == ["growth_10k", "38,000/s", "40,000/s", "0.950 x"]
    memory = row(page, "Redis memory a queued")
    assert memory[1:] == ["-", "210 B", "-", "-", "≤ 200 B", "≤ 160 B", "**missed by 5.00 %**"]


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("per_second", 3.0, "met"),
        ("per_second", 2.999, "first bar"),
        ("per_second", 2.0, "first bar"),
        ("per_second", 1.999, "missed by 0.0500 %"),
        ("per_second", 1.5, "missed by 25.0 %"),
        ("p50_ms", 3.0, "missed by 50.0 %"),
        ("p50_ms", 2.0, "first bar"),
        ("p50_ms", 1.0, "met"),
        ("p50_ms", 0.0, "met"),
    ],
)
def test_verdicts(figure: str, value: float, said: str) -> None:
    goal = 3 if figure == "per_second" else 1
    assert verdict(Target("x", ("drain_32",), figure, "raw", 2, goal), Measured(value, value)) == said


def test_ratios_are_of_one_session_and_tables_of_all(report: Report, write: Write) -> None:
    slow = [environment(), *run("end_to_end", "streamq", 10_000), *run("end_to_end", "bullmq", 5_000)]
    fast = [environment(), *run("end_to_end", "streamq", 30_000), *run("end_to_end", "bullmq", 20_000)]
    other = [environment(), *run("end_to_end", "bullmq", 40_000)]
    page = report(slow, fast, other)
    assert rows(page, "end to end")[1][2:5] == [
        "30,000/s",
        "20,000/s",
        "1.50 x",
    ]  # the worse; 2.00 of the medians of all
    assert row(page, "**streamq** | 20,000")[2] == "10,000 to 30,000"
    assert "3 sessions" in page
    assert "Their environments are the same." in page
    assert report([*slow, *fast, *other]) == page  # concatenated


def test_of_three_sessions_the_middle_ratio_counts(write: Write) -> None:
    (bulk,) = [each for each in TARGETS if each.what == "enqueue, bulk"]
    rates = [10_000, 40_000, 20_000]
    files = [
        write([environment(), *run("enqueue_bulk", "streamq", each), *run("enqueue_bulk", "bullmq", 10_000)])
        for each in rates
    ]
    found = measure(bulk, read(files))
    assert found == Measured(2.0, 20_000, "bullmq", 10_000)


def test_what_is_measured_is_shown_and_what_is_aimed_at_is_measured() -> None:
    shown = {name for group in GROUPS for name in group.scenarios}
    shown |= {f"{prefix}{step}" for scale in SCALES for prefix, *_ in scale.lines for step in scale.steps}
    assert set(SCENARIOS) <= shown
    assert {name for each in TARGETS for name in (*each.scenarios, *each.base)} <= set(SCENARIOS)
    assert {each.against for each in TARGETS} <= {*NAMES, PYTHON, PEER, ""}
    assert all((each.goal > each.first) is each.higher for each in TARGETS)
