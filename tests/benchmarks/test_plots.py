"""The plots: what is drawn where."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plots import Axis, Row, bars, lines, ranges
from benchmarks.results import Spread


def spread(median: float, low: float = 0, high: float = 0) -> Spread:
    return Spread(median, low or median, high or median, 3)


def marks(svg: str, kind: str) -> list[dict[str, str]]:
    return [each.attrib for each in ElementTree.fromstring(svg).iter() if each.get("class") == kind]


def test_bars_are_as_long_as_their_medians_with_the_range_across() -> None:
    svg = bars(
        "<Drain & more>", "jobs/s", [Row("streamq", "o", (spread(80, 60, 100),)), Row("saq", "p", (spread(40),))]
    )
    long, short = (float(marks(svg, kind)[0]["width"]) for kind in "op")
    assert long == pytest.approx(2 * short, abs=0.2)
    assert "log axis" not in svg
    assert "&lt;Drain &amp; more&gt;" in svg
    start = float(marks(svg, "o")[0]["x"])
    left, right = re.findall(r"[\d.]+", marks(svg, "w")[0]["d"])[::2]
    assert float(left) - start == pytest.approx(0.75 * long, abs=0.2)
    assert float(right) - start == pytest.approx(1.25 * long, abs=0.2)


@pytest.mark.parametrize(("least", "log"), [(5.0, False), (4.9, True)])
def test_an_axis_is_logarithmic_beyond_twenty_times(least: float, log: bool) -> None:
    rows = [Row("streamq", "o", (spread(100),)), Row("rq", "l", (spread(least),))]
    for draw in (bars, ranges):
        assert ("log axis" in draw("x", "ms", rows)) is log
    assert ("log axis" in lines("x", "jobs/s", ["1"], rows)) is log


def test_ranges_go_from_the_median_to_the_tail() -> None:
    rows = [Row("saq †", "p", (spread(1), spread(2), spread(4))), Row("raw", "l", (spread(1), spread(2), None))]
    svg = ranges("Latency", "ms", rows)
    places = [float(each["cx"]) for each in marks(svg, "p")]
    assert places == sorted(places)
    assert len(places) == 3
    assert len(marks(svg, "l")) == 2
    assert "1.00 / 2.00 / 4.00<" in svg
    assert "p50, p99, p99.9" in svg
    assert "†: no stored results" in svg


def test_lines_leave_out_what_was_not_measured_and_keep_labels_apart() -> None:
    rows = [Row("a", "o", (spread(5), None, spread(9))), Row("b", "p", (spread(5), spread(8.9), None))]
    svg = lines("Growth", "jobs/s", ["10k", "100k", "1m"], [*rows, Row("c", "l", (None, None, spread(9)))])
    assert [len(marks(svg, kind)) for kind in "opl"] == [2, 2, 1]
    heights = [float(each["y"]) for each in marks(svg, "t") if float(each["x"]) > 300]
    assert len(heights) == 3
    assert all(above - below >= 16 for above, below in pairwise(heights))


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20))
def test_an_axis_holds_its_values_in_order_and_has_ticks(values: list[float]) -> None:
    axis = Axis.over(values, 100, 500)
    places = [axis.at(each) for each in sorted(values)]
    assert places == sorted(places)
    assert 100 <= places[0] <= places[-1] <= 500 + 1e-9
    assert axis.low <= min(values) * (1 + 1e-9)
    assert axis.high >= max(values) * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 17
    assert axis.ticks == sorted(set(axis.ticks))
