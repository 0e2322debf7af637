"""docs/reliability.md names tests that exist, and every test of the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
NAMED = re.compile(r"`(test_\w+)`")


def defined(folder: Path) -> set[str]:
    return {name for path in folder.rglob("test_*.py") for name in DEFINED.findall(path.read_text())}


def test_the_page_names_tests_that_exist_and_the_whole_catalogue() -> None:
    named = set(NAMED.findall((ROOT / "docs" / "reliability.md").read_text()))
    assert named - defined(ROOT / "tests") == set()
    assert {name for name in defined(Path(__file__).parent) if re.match(r"test_f\d\d_", name)} - named == set()
