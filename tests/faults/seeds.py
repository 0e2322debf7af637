"""Chance with a name: every fault test draws from a seed, which a failure prints and STREAMQ_FAULT_SEED sets."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

SEED: Final = os.environ.get("STREAMQ_FAULT_SEED") or str(secrets.randbits(32))
FOLDER: Final = pytest.StashKey[Path]()
PASSED: Final = pytest.StashKey[bool]()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Of this test alone: the same seed gives it the same numbers, whichever tests ran before."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    if report.failed:
        again = f"STREAMQ_FAULT_SEED={SEED} pytest '{item.nodeid}'"
        report.sections.append(("fault seed", f"{again}\nledgers: {item.stash.get(FOLDER, None)}"))
    return report
