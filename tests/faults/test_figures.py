"""What the fault tests measured becomes a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import figures
from tests.faults.figures import BEGIN, END, Figure, put, shown, table


def figure(test: str, what: str, value: float, unit: str = "s", run: str = "1") -> Figure:
    return Figure(
        test=test, what=what, value=value, unit=unit, run=run, date="2026-01-02", machine="Linux", cores=2,
        python="3.11.7", server="Redis 7.0.15", lease=1.0,
    )  # fmt: skip


def test_the_median_and_the_worst_of_each_thing_that_was_measured() -> None:
    text = table(
        [
            *(figure("test_f02_b", "waits", value, run=str(value)) for value in (0.5, 1.25, 2.0)),
            figure("test_f01_a", "lost", 1234, ""),
        ],
        ["test_f01_a", "test_f02_b", "test_f03_c"],
    )
    lines = text.splitlines()
    assert lines[0].startswith("Measured on 2026-01-02 on Linux, 2 cores, Python 3.11.7, Redis 7.0.15, in 4 runs")
    assert lines[-4:] == [
        "| F01 | lost | 1 | 1,234 | 1,234 | `test_f01_a` |",
        "| F02 | waits | 3 | 1.25 s | 2.00 s | `test_f02_b` |",
        "",
        "Without a figure of their own: `test_f03_c`.",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(0.0123, "s", "12.3 ms"), (1.2345, "s", "1.23 s"), (3.4, "MB", "3.4 MB"), (7, "", "7")]
)
def test_units(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_only_what_is_between_the_marks_is_replaced() -> None:
    once = put(f"a\n{BEGIN}\nold\n{END}\nb\n", "new")
    assert once == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
    assert put(once, "new") == once
    with pytest.raises(AssertionError, match="is missing"):
        put("no marks", "new")


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, page = tmp_path / "figures.jsonl", tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr(figures, "FILE", str(file))
    monkeypatch.setattr(figures, "PAGE", page)
    for value in (1.0, 3.0):
        figures.write("test_f01_workers_are_killed_under_load", [("waits", value, "s")], "Redis 7.0.15", 1.0)
    figures.main([str(file)])
    assert "| F01 | waits | 2 | 2.00 s | 3.00 s | `test_f01_workers_are_killed_under_load` |" in page.read_text()
