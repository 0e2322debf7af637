"""mypy --strict and pyright accept the public face in use and reject the planted mistakes, both of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
FILES = [HERE / "good.py", HERE / "mistakes.py"]
MARK = re.compile(r"# E: (\S+) / (\S+)$")
TOOLS = ["mypy", "pyright"]

Reports = dict[str, dict[int, list[str]]]  # file name -> line -> what was said


def ask(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, FILES)],
        cwd=PROJECT,
        env=os.environ | {"MYPYPATH": os.pathsep.join(map(str, (PROJECT, HERE)))},
        capture_output=True,
        text=True,
        timeout=180,
    )
    # 1 is "mistakes were found"; anything else is a checker that did not check.
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def mypy(cache: Path) -> Reports:
    reports: Reports = defaultdict(lambda: defaultdict(list))
    plain = ("--no-pretty", "--hide-error-context", "--no-error-summary", "--show-error-codes")
    said = ask("mypy", "--strict", "--config-file=", f"--cache-dir={cache}", *plain)
    for path, line, error in re.findall(r"^(.+?):(\d+): error: (.*)$", said, re.MULTILINE):
        reports[Path(path).name][int(line)].append(error)
    return reports


def pyright(_: Path) -> Reports:
    reports: Reports = defaultdict(lambda: defaultdict(list))
    for each in json.loads(ask("pyright", "--outputjson", "--pythonpath", sys.executable))["generalDiagnostics"]:
        line = each["range"]["start"]["line"] + 1
        reports[Path(each["file"]).name][line].append(f"{each['message']} [{each.get('rule', '')}]")
    return reports


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reports]:
    cache = tmp_path_factory.mktemp("mypy")
    return {"mypy": mypy(cache), "pyright": pyright(cache)}


def planted(tool: str) -> dict[int, str]:
    lines = FILES[1].read_text(encoding="utf-8").splitlines()
    marks = ((number, MARK.search(line)) for number, line in enumerate(lines, start=1))
    return {number: mark[1 + TOOLS.index(tool)] for number, mark in marks if mark}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_public_face_is_accepted(reports: dict[str, Reports], tool: str) -> None:
    assert reports[tool].get("good.py", {}) == {}


@pytest.mark.parametrize("tool", TOOLS)
def test_every_planted_mistake_is_reported(reports: dict[str, Reports], tool: str) -> None:
    found = reports[tool]["mistakes.py"]
    marks = planted(tool)
    assert len(marks) >= 8
    missed = {
        line: (words, found.get(line))
        for line, words in marks.items()
        if not any(word in said for word in words.split("|") for said in found.get(line, []))
    }
    assert missed == {}
    assert {line: said for line, said in found.items() if line not in marks} == {}
