"""A chart as SVG, written by hand: for each scenario a bar to the median, and a dot for each run."""

from __future__ import annotations

from html import escape
from typing import Final

from streamq.cli.bench.figures import bound
from streamq.cli.bench.report import Row, medians, rows, surroundings
from streamq.cli.bench.run import Report

WIDTH: Final = 860
LEFT: Final = 120  # where the bars begin
LONGEST: Final = 460
TOP: Final = 52
STEP: Final = 44
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}"
    ".bar{fill:#9ecae1}.run{fill:#08519c;fill-opacity:.7}"
)


def chart(report: Report) -> str:
    """The whole file. All rates share one scale and all times another; both begin at 0."""
    drawn: list[str] = []
    y = TOP
    for row in (shown := rows(report)):
        longest = max(each.spread.highest for each in shown if each.unit == row.unit)
        drawn += _row(y, row, LONGEST / longest, bound(medians(report.found[row.scenario])))
        y += STEP
    for line in surroundings(report):
        drawn.append(f'<text class="small" x="14" y="{y + 8}">{escape(line)}</text>')
        y += 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{y + 8}" fill="#ffffff"/>',
            '<text x="14" y="26" font-weight="bold">streamq bench: median and every run</text>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _row(y: int, row: Row, scale: float, bounded: str) -> list[str]:
    runs = [f'<circle class="run" cx="{LEFT + run * scale:.1f}" cy="{y + 10}" r="4"/>' for run in row.spread.runs]
    at = LEFT + LONGEST + 16
    return [
        f'<text x="14" y="{y + 15}">{escape(row.name)}</text>',
        f'<rect class="bar" x="{LEFT}" y="{y}" width="{row.spread.median * scale:.1f}" height="20"/>',
        *runs,
        f'<text x="{at}" y="{y + 9}">{row.shown(row.spread.median)} {row.unit}</text>',
        f'<text class="small" x="{at}" y="{y + 24}">bound by {escape(bounded)}</text>',
    ]
