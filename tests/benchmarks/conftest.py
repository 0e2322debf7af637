"""Files of runs, and the report of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.report import main
from tests.benchmarks.sessions import Line, Report, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(found: Sequence[Line]) -> Path:
        path = tmp_path / f"{len(list(tmp_path.glob('*.jsonl')))}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in found))
        return path

    return write


@pytest.fixture
def report(tmp_path: Path, write: Write) -> Report:
    """RESULTS.md of one or several sessions."""

    def report(*sessions: Sequence[Line]) -> str:
        main([write(each) for each in sessions], tmp_path / "out")
        return (tmp_path / "out" / "RESULTS.md").read_text()

    return report
