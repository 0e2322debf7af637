"""The report of measured runs: what it shows, and that it says what is missing or went wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.contenders import NAMES
from benchmarks.report import main
from benchmarks.results import number
from benchmarks.scenarios import SCENARIOS
from benchmarks.targets import TARGETS
from tests.benchmarks.sessions import Line, Report, Write, environment, failed, row, rows, run

PROJECT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (34_412.7, "34,400"),
        (1_234_567, "1,230,000"),
        (999.6, "1,000"),
        (243.4, "243"),
        (99.96, "100"),
        (12.04, "12.0"),
        (0.6701, "0.670"),
        (0.000123, "0.000123"),
        (-3.456, "-3.46"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_has_medians_spread_and_columns_and_is_sorted(report: Report) -> None:
    more = {"worker_cpu_us": 520.0, "server_cpu_us": 93.4, "server_commands": 10.0}
    page = report(
        [
            environment(),
            *run("drain_100", "saq", 2_000, 1_800, 1_900),
            *run("drain_100", "streamq", 34_000, 30_000, 38_000, 36_000),
            {
                "scenario": "drain_100",
                "contender": "arq",
                "run": 0,
                "jobs": 9_000,
                "figures": {"per_second": 800} | more,
            },
            *run("drain_100", "raw", 90_000),
            *run("latency", "saq", 1.21, figure="p50_ms"),
            *run("latency", "streamq", 0.671, figure="p50_ms"),
        ]
    )
    drain, latency = page.split("#### Drain, concurrency 100")[1].split("#### Start latency")
    heads = ["contender", "jobs/s", "lowest to highest", "worker CPU us", "server CPU us", "server commands"]
    assert rows(drain, "")[0] == [*heads, "runs", "jobs"]
    assert rows(drain, "")[1:5] == [
        ["*raw* †", "90,000", "90,000 to 90,000", "-", "-", "-", "1", "20,000"],
        ["**streamq**", "35,000", "30,000 to 38,000", "-", "-", "-", "4", "20,000"],
        ["saq", "1,900", "1,800 to 2,000", "-", "-", "-", "3", "20,000"],
        ["arq", "800", "800 to 800", "520", "93.4", "10.0", "1", "9,000"],
    ]
    assert [cells[0] for cells in rows(latency, "")[1:3]] == ["**streamq**", "saq"]  # less is better


def test_how_it_was_measured_and_how_to_repeat_it(report: Report) -> None:
    page = report([environment(), *run("drain_100", "streamq", 3, 1, 2), *run("drain_100", "saq", 1)])
    said = "Measured on 2026-11-22 on Linux x86_64, Xeon, 2 cores, Python 3.11.7, redis-server 7.0.15"
    assert said in page
    assert "1 to 3 runs of each scenario" in page
    assert "seed 7" in page
    command = "python -m benchmarks run --runs 3 --seed 7 --scenario drain_100 --out bench.jsonl\n"
    assert command in page
    assert "quick" not in page


def test_the_command_names_only_what_is_not_usual(report: Report) -> None:
    everything = [line for name, each in SCENARIOS.items() for line in run(name, each.contenders[0], 1)]
    assert "run --runs 1 --seed 7 --out" in report([environment(), *everything])
    quick = [line for name, each in SCENARIOS.items() if each.core for line in run(name, "saq", 1)]
    page = report([environment(quick=True, versions={"saq": {}, "arq": {}}), *quick])
    assert "run --runs 1 --seed 7 --quick --contender saq --contender arq --out" in page
    assert "A quick look" in page


def test_environments_that_differ(report: Report) -> None:
    changed = environment(python="3.14.0", versions={"saq": {"saq": "2.0"}, "new": {}}, results={"saq": False})
    page = report([environment(), *run("io", "saq", 1)], [changed, *run("io", "saq", 2)])
    assert "**Their environments differ: python (3.11.7 / 3.14.0), versions of saq, results of saq.**" in page
    assert row(page, "saq | no")[2:] == ["saq 1.2.3; saq 2.0", "-"]


@pytest.mark.parametrize("given", [[], [environment()], [{"environment": {}}]])
def test_nothing_measured(report: Report, tmp_path: Path, given: list[Line]) -> None:
    page = report(given)
    assert f"{len(TARGETS)} targets: {len(TARGETS)} not measured." in page
    assert page.count("**not measured** |") == len(TARGETS)
    assert list((tmp_path / "out" / "plots").iterdir()) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("contender", ["streamq", "saq"])
def test_any_input_may_be_missing(report: Report, scenario: str, contender: str) -> None:
    """One scenario of one contender, with figures that are zero."""
    names = ("per_second", "part_of_ideal", "p50_ms", "p99_ms", "bytes_queued", "commands_per_second", "server_cpu_us")
    line = {"scenario": scenario, "contender": contender, "run": 0, "jobs": 1, "figures": dict.fromkeys(names, 0.0)}
    page = report([environment(), line])
    assert "not measured" in page
    assert "Without a description" not in page


def test_errors_are_listed_and_shown_in_one_line(report: Report) -> None:
    page = report(
        [
            environment(),
            *run("drain_100", "saq", 1_900, 2_000),
            failed("drain_100", "saq", "the `worker` ended: 1\n[worker]\nTraceback", 2),
            *(failed("delayed", name, "not supported: no delays") for name in ("rq", "hiredis")),
            failed("growth_1m", "streamq", "x" * 1_000),
        ]
    )
    assert "* saq, drain_100: no figures in 1 of 3 runs: `the 'worker' ended: 1`\n" in page
    assert "* hiredis, rq, delayed: no figures in 1 of 1 runs: `not supported: no delays`\n" in page
    assert f"* streamq, growth_1m: no figures in 1 of 1 runs: `{'x' * 160}`\n" in page
    assert "Runs of streamq that failed, which are in no median and listed with their scenarios: 1." in page
    assert "Traceback" not in page
    assert "plots/delayed.svg" not in page


def test_growth_and_scale(report: Report) -> None:
    page = report(
        [
            environment(),
            *run("growth_10k", "bullmq", 12_000, 10_000),
            *run("growth_100k", "bullmq", 9_000),
            *run("workers_1", "streamq", 30_000),
            *run("workers_4", "streamq", 60_000),
            *run("workers_cpu_1", "streamq", 7_000),
            *run("cluster_1", "streamq", 30_000),
            *run("cluster_3", "streamq", 75_000),
            *run("cluster_3", "streamq", 18, figure="server_cpu_us"),
        ]
    )
    growth, workers = page.split("### Growth")[1].split("### Worker processes")
    assert row(growth, "bullmq")[2:] == ["11,000 (10,000 to 12,000)", "9,000 (9,000 to 9,000)", "-", "-"]
    assert row(workers, "**streamq** | no-op jobs")[-1] == "2.00 x"
    assert row(workers, "**streamq** | jobs of 100 us CPU")[2:4] == ["7,000 (7,000 to 7,000)", "-"]
    assert row(workers, "**streamq** | jobs/s")[-1] == "2.50 x"
    assert row(workers, "**streamq** | server CPU us")[2:5] == ["-", "-", "18.0 (18.0 to 18.0)"]


def test_versions_and_settings(report: Report) -> None:
    page = report([environment()]).split("## Versions and settings")[1]
    assert r"| arq | yes | arq 1.2.3 | poll 5 ms \| see its page |" in page
    assert row(page, "taskiq_list |")[1] == "no"
    assert [cells[0] for cells in rows(page, "")] == ["contender", *NAMES]


def test_a_scenario_without_a_description_is_not_left_out(report: Report) -> None:
    page = report([environment(), *run("juggling", "stranger", 7)])
    assert row(page.split("#### juggling")[1], "stranger † | 7.00")[2] == "7.00 to 7.00"


def test_plots_are_linked_and_old_ones_removed(report: Report, tmp_path: Path) -> None:
    page = report([environment(), *run("drain_32", "saq", 1), *run("latency", "saq", 1, figure="p50_ms")])
    assert "![Drain, concurrency 32](plots/drain_32.svg)" in page
    assert "* [latency](plots/latency.svg)" in page
    plots = tmp_path / "out" / "plots"
    (plots / "own.svg").write_text("drawn by hand")
    report([environment(), *run("drain_32", "saq", 1)])
    assert sorted(path.name for path in plots.iterdir()) == ["drain_32.svg", "own.svg"]


def everything() -> list[Line]:
    found = [environment()]
    for index, (name, scenario) in enumerate(SCENARIOS.items()):
        for place, contender in enumerate(scenario.contenders):
            for turn in range(3):
                value = 1.7 ** (place + turn / 5) * (index + 1)
                tail = {"p50_ms": value, "p99_ms": value * 2, "p999_ms": value * 3}
                figures = {"per_second": value, "part_of_ideal": 0.9, "bytes_queued": value} | tail
                line = {"scenario": name, "contender": contender, "run": turn, "jobs": 1, "figures": figures}
                found.append(line)
    return found


def test_the_same_input_gives_the_same_bytes_in_every_process(write: Write, tmp_path: Path) -> None:
    path = write(everything())
    code = (
        "import sys, pathlib, benchmarks.report as it; it.main([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(path), str(tmp_path / seed)]
        subprocess.run(command, check=True, cwd=PROJECT, env=os.environ | {"PYTHONHASHSEED": seed})
    first, second = (
        {file.relative_to(tmp_path / seed): file.read_bytes() for file in (tmp_path / seed).rglob("*.*")}
        for seed in ("1", "2")
    )
    assert first == second
    assert {file.stem for file in first} == {
        "RESULTS", "enqueue_sequential", "enqueue_concurrent", "enqueue_bulk", "drain_32", "drain_100", "end_to_end",
        "latency", "round_trip", "delayed", "load_50", "load_80", "growth", "workers",
    }  # fmt: skip
    for file, text in first.items():
        if file.suffix == ".svg":
            assert len(text) < 40_000
            assert ElementTree.fromstring(text).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{"environment": {}}\n{"scenario": "io", "cont', 2, "truncated"),
        ('\n{"scenario": "io", "contender": "saq"}\n', 2, "a run before the environment"),
        ('{"environment": {"cores": "two"}}\n', 1, "cores"),
        (
            '{"environment": {}}\n{"scenario": "io", "contender": "saq", "figures": {"per_second": "fast"}}\n',
            2,
            "float",
        ),
        ('{"environment": {}}\n{"contender": "saq"}\n', 2, "scenario"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}:{line}: .*{said}"):
        main([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
