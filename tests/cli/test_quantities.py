"""How many processes, and how much memory."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from streamq.cli import quantities

OPTION = click.Option(["--x"])
CONTEXT = click.Context(click.Command("x"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("1.5GiB", 3 << 29), ("1 kb", 1_000), ("4096", 4_096), ("2TB", 2 * 10**12), (None, 0)],
)
def test_sizes(text: str | None, size: int) -> None:
    assert quantities.memory(CONTEXT, OPTION, text) == size


@pytest.mark.parametrize("text", ["", "MB", "-5MB", "5 potatoes", "0", "0.1", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        quantities.memory(CONTEXT, OPTION, text)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "²"])
def test_what_is_no_number_of_processes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no number of processes"):
        quantities.processes(CONTEXT, OPTION, text)


@pytest.mark.parametrize(("said", "count"), [("max 100000", 3), ("150000 100000", 2), ("1000 100000", 1), (None, 3)])
def test_auto_is_a_core_each_as_far_as_the_container_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, count: int
) -> None:
    monkeypatch.setattr(quantities, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(quantities.os, "process_cpu_count", lambda: 3, raising=False)
    if said is not None:
        (tmp_path / "cpu.max").write_text(f"{said}\n")
    assert quantities.processes(CONTEXT, OPTION, "auto") == count
