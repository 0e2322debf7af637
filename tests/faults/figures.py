"""What the fault tests measured, and the table of it in docs/reliability.md.

STREAMQ_FAULT_FIGURES=/tmp/figures.jsonl pytest tests/faults -m "slow or not slow"    # as often as you like
python -m tests.faults.figures /tmp/figures.jsonl
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

FILE: Final = os.environ.get("STREAMQ_FAULT_FIGURES", "")
RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}"  # one of pytest, all its processes
ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
ROW: Final = re.compile(r"test_f(\d\d)_")
DEFINED: Final = re.compile(r"^(?:async )?def (test_f\d\d_\w+)", re.MULTILINE)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that one test measured once. The unit "s" is seconds; of others the value is a number of them."""

    test: str
    what: str
    value: float
    unit: str
    run: str
    date: str
    machine: str
    cores: int
    python: str
    server: str
    lease: float


def cpu() -> str:
    """Kind of system and processor."""
    told = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return f"{platform.system()} {platform.machine()}" + (f", {told[1]}" if told else "")


def write(test: str, told: Iterable[tuple[str, float, str]], server: str, lease: float) -> None:
    """Add what a test measured, as (what, value, unit), to the file that STREAMQ_FAULT_FIGURES names."""
    if not row(test):
        return  # a control run
    lines = [
        msgspec.json.encode(
            Figure(
                test=test,
                what=what,
                value=value,
                unit=unit,
                run=RUN,
                date=f"{datetime.now(UTC):%Y-%m-%d}",
                machine=cpu(),
                cores=os.cpu_count() or 0,
                python=platform.python_version(),
                server=server,
                lease=lease,
            )
        )
        for what, value, unit in told
    ]
    with Path(FILE).open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


# ---- the table ------------------------------------------------------------------------------------------------


def table(figures: Sequence[Figure], tests: Iterable[str]) -> str:
    """Of each thing measured how often, its median and its worst; and the tests that measured nothing."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.test, figure.what), []).append(figure)
    lines = ["| | measured | times | median | worst | by |", "|---|---|---|---|---|---|"]
    for (test, what), found in sorted(groups.items()):
        values, unit = [each.value for each in found], found[0].unit
        cells = (row(test), what, str(len(values)), shown(median(values), unit), shown(max(values), unit), f"`{test}`")
        lines.append(f"| {' | '.join(cells)} |")
    silent = sorted(set(tests) - {test for test, _ in groups})
    parts = [about(figures), "\n".join(lines)] if groups else []
    if silent:
        parts.append(f"Without a figure of their own: {', '.join(f'`{test}`' for test in silent)}.")
    return "\n\n".join(parts)


def row(test: str) -> str:
    """The number of the fault that a test is about."""
    found = ROW.match(test)
    return f"F{found[1]}" if found else ""


def shown(value: float, unit: str) -> str:
    """Seconds as seconds or milliseconds, everything else as a number with its unit."""
    match unit:
        case "s" if value < 0.1:
            return f"{value * 1000:.1f} ms"
        case "s":
            return f"{value:.2f} s"
        case _:
            return f"{value:,.2f}".rstrip("0").rstrip(".") + f" {unit}".rstrip()


def about(figures: Sequence[Figure]) -> str:
    """When, where and with what."""
    dates, runs = sorted({each.date for each in figures}), {each.run for each in figures}
    servers = ", ".join(sorted({each.server for each in figures}))
    pythons = ", ".join(sorted({each.python for each in figures}))
    one, lease = figures[0], figures[0].lease
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    times = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return (
        f"Measured on {when} on {one.machine}, {one.cores} cores, Python {pythons}, {servers}, in {times} of the"
        f" catalogue. A lease is {lease:g} s where a row does not say otherwise, so the promise of 1.25 leases and a"
        f" second is {1.25 * lease + 1:g} s."
    )


def tests_of(folder: Path) -> set[str]:
    """The tests of the catalogue."""
    return {name for path in folder.glob("test_*.py") for name in DEFINED.findall(path.read_text())}


def put(page: str, text: str) -> str:
    """The page with `text` between its two marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert mark, f"{BEGIN} is missing"
    assert end, f"{END} is missing"
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(paths: Sequence[str]) -> None:
    lines = [line for path in paths for line in Path(path).read_bytes().splitlines()]
    figures = [msgspec.json.decode(line, type=Figure) for line in lines]
    PAGE.write_text(put(PAGE.read_text(), table(figures, tests_of(Path(__file__).parent))))
    print(f"{PAGE}: {len(figures)} figures of {len({figure.run for figure in figures})} runs")


if __name__ == "__main__":
    main(sys.argv[1:])
