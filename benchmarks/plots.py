"""Plots as small SVG files: the same bytes for the same figures, legible on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.results import Spread, number

WIDTH, LEFT, RIGHT, TOP, ROW, DEEP = 760, 150, 560, 62, 26, 220  # px; of the plot: left, right, top, a row, line plots
LOG_FROM = 20  # largest to smallest value from which an axis is logarithmic
STEPS = (1, 2, 2.5, 5, 10)
# Classes: b background, t text, m muted text, g grid, w whisker; o own (streamq), p peer, l limit
LIGHT = "b#fff t#1f2328 m#59636e g#d8dee4 w#1f2328 o#2f74e0 p#94a0ad l#ccd4dc"
DARK = "b#0d1117 t#e6edf3 m#9aa4af g#2a3038 w#e6edf3 o#4c8dff p#77828e l#56606b"


@dataclass(frozen=True)
class Row:
    """What is drawn of one contender, in the colour of its `kind`: own, peer or limit."""

    label: str
    kind: str
    values: tuple[Spread | None, ...]  # None: not measured

    @property
    def known(self) -> list[Spread]:
        return [each for each in self.values if each]


@dataclass(frozen=True)
class Axis:
    """Values to pixels. Linear axes begin at 0."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> Axis:
        above = [each for each in values if each > 0] or [1.0]
        low, high = min(above), max(above)
        if high > LOG_FROM * low:
            return cls(_below(low), _above(high, (1, 2, 5, 10)), True, start, end)
        return cls(0.0, _above(high, (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)), False, start, end)

    def at(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        part = math.log(value / self.low, self.high / self.low) if self.log else value / self.high
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        if not self.log:
            step = _above(self.high / 5, STEPS)
            return [step * i for i in range(int(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [mark * 10.0**decade for decade in decades for mark in ((1, 2, 5) if len(decades) < 5 else (1,))]
        return [each for each in every if self.low * 0.999 < each < self.high * 1.001]


def _above(value: float, steps: Sequence[float]) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * next(each for each in steps if each * decade >= value * (1 - 1e-9) or each == steps[-1])


def _below(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * max(each for each in (1, 2, 5) if each == 1 or each * decade <= value)


def bars(title: str, unit: str, rows: Sequence[Row]) -> str:
    """Medians, with the range of the runs."""

    def draw(row: Row, axis: Axis, y: float) -> list[str]:
        found = row.known[0]
        width = axis.at(found.median) - axis.start
        bar = f'<rect class="{row.kind}" x="{axis.start:g}" y="{y - 8:.1f}" width="{width:.1f}" height="16"/>'
        low, high = axis.at(found.low), axis.at(found.high)
        ends = [_line(each, y - 4, each, y + 4, "w") for each in (low, high)]
        return [bar, _line(low, y, high, y, "w"), *ends]

    return _rows(title, f"{unit}, median and range of the runs", rows, draw)


def ranges(title: str, unit: str, rows: Sequence[Row]) -> str:
    """From the median to the tail, each the median of the runs."""

    def draw(row: Row, axis: Axis, y: float) -> list[str]:
        places = [axis.at(each.median) for each in row.known]
        dots = [_dot(x, y, radius, row.kind) for x, radius in zip(places, (6, 4, 2.5), strict=False)]
        return [_line(places[0], y, places[-1], y, f"{row.kind} n"), *dots]

    names = ("p50", "p99", "p99.9")[: max((len(row.known) for row in rows), default=1)]
    return _rows(title, f"{unit}: {', '.join(names)} from large to small dot, medians of the runs", rows, draw)


def _rows(title: str, note: str, rows: Sequence[Row], draw: Callable[[Row, Axis, float], list[str]]) -> str:
    axis = Axis.over(_values(rows), LEFT, RIGHT)
    bottom = TOP + ROW * len(rows)
    marks = [_line(axis.at(each), TOP, axis.at(each), bottom, "g") for each in axis.ticks]
    marks += [_text(axis.at(each), bottom + 16, _short(each), "m s", "middle") for each in axis.ticks]
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        said = " / ".join(number(each.median) for each in row.known)
        marks += [_text(LEFT - 10, y + 4, row.label, anchor="end"), *draw(row, axis, y), _text(RIGHT + 14, y + 4, said)]
    return _page(title, _note(note, rows, axis), bottom + 28, marks)


def lines(title: str, unit: str, steps: Sequence[str], rows: Sequence[Row]) -> str:
    """A line a row, with a value for each of the steps."""
    bottom = TOP + DEEP
    axis = Axis.over(_values(rows), bottom, TOP + 6)
    places = [70 + (RIGHT - 70) * (index + 0.5) / len(steps) for index in range(len(steps))]
    marks = [_line(70, axis.at(each), places[-1], axis.at(each), "g") for each in axis.ticks]
    marks += [_text(62, axis.at(each) + 4, _short(each), "m s", "end") for each in axis.ticks]
    marks += [_text(x, bottom + 18, step, "m s", "middle") for x, step in zip(places, steps, strict=True)]
    free = math.inf
    for row in sorted(rows, key=lambda row: row.known[-1].median):
        points = [(x, axis.at(each.median), each) for x, each in zip(places, row.values, strict=True) if each]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        marks.append(f'<path class="{row.kind} n" d="M{path}"/>')
        for x, y, each in points:
            marks += [_line(x, axis.at(each.low), x, axis.at(each.high), "w"), _dot(x, y, 4, row.kind)]
        x, y, last = points[-1]
        free = min(y + 4, free - 16)  # labels do not cover each other
        marks.append(_text(x + 12, free, f"{row.label} {number(last.median)}"))
    return _page(title, _note(f"{unit}, median and range of the runs", rows, axis), bottom + 32, marks)


def _values(rows: Sequence[Row]) -> list[float]:
    return [value for row in rows for each in row.known for value in (each.low, each.median, each.high)]


def _short(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "t", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _dot(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _rules(colours: str) -> str:
    return "".join(f".{each[0]}{{fill:{each[1:]};stroke:{each[1:]}}}" for each in colours.split())


STYLE = (
    f"<style>{_rules(LIGHT)}path{{fill:none!important}}.n{{stroke-width:2.5}}.s{{font-size:11px!important}}"
    "text{stroke:none!important;font:13px system-ui,'DejaVu Sans',sans-serif}.h{font-weight:600}"
    f"@media(prefers-color-scheme:dark){{{_rules(DARK)}}}</style>"
)


def _note(note: str, rows: Sequence[Row], axis: Axis) -> str:
    note += "; log axis" if axis.log else ""
    note += "; pale: no queues" if any(row.kind == "l" for row in rows) else ""
    return note + ("; †: no stored results" if any("†" in row.label for row in rows) else "")


def _page(title: str, note: str, height: float, marks: Iterable[str]) -> str:
    size = f'width="{WIDTH}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" {size} role="img">'
    back = f'<title>{escape(title)}</title>{STYLE}<rect class="b" {size} rx="8"/>'
    return "\n".join([head, back, _text(16, 26, title, "t h"), _text(16, 45, note, "m s"), *marks, "</svg>\n"])
