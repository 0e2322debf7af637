"""Durations in every form, dates, and the estimate of the server's clock."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.core.clock import Duration, ServerClock, eta_ms, milliseconds, seconds
from streamq.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("1.5h", 5400.0),
        ("1w2d3h4m5s6ms", 788_645.006),
        ("5m30ms", 300.03),
        (" 10m ", 600.0),
        ("30", 30.0),
        ("0.5", 0.5),
        ("0s", 0.0),
    ],
)
def test_a_duration_in_seconds(value: Duration, expected: float) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "h",
            "10x",
            "1h30",
            "30m1h",
            "1h1h",
            "1h 30m",
            "-5s",
            "-5",
            "1e3",
            "nan",
            "inf",
            "1.h",
            ".5s",
            "٣s",
        ),
        *(True, False, None, b"90s", [90], float("nan"), float("inf"), -1, -0.001, timedelta(seconds=-1)),
        *(10**400, 1e300, "9" * 400 + "s", "9" * 400, timedelta.max),
    ],
)
def test_nonsense_is_refused_by_name_with_the_forms(value: object) -> None:
    with pytest.raises(ConfigurationError, match="retry_backoff_max=") as caught:
        seconds(cast(Duration, value), name="retry_backoff_max")
    assert '"1h30m"' in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "expected"), [("250ms", 250), (1.1, 1100), (0.0004, 1), (0, 0), ("1.5s", 1500), (2.5, 2500)]
)
def test_a_duration_in_milliseconds(value: Duration, expected: int) -> None:
    found = milliseconds(value, name="lease")
    assert (found, type(found)) == (expected, int)


@given(st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_every_form_says_the_same(value: timedelta) -> None:
    whole = value // timedelta(milliseconds=1)
    assert milliseconds(f"{whole}ms") == milliseconds(whole / 1000) == whole
    assert milliseconds(timedelta(milliseconds=whole)) == whole
    d, h, ms = whole // 86_400_000, whole // 3_600_000 % 24, whole % 3_600_000
    assert milliseconds(f"{d}d{h}h{ms}ms") == whole


@given(st.text(alphabet="0123456789.wdhms -+e", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert seconds(text) >= 0


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (datetime(2025, 1, 1, tzinfo=UTC), 1_735_689_600_000),
        (datetime(2025, 1, 1), 1_735_689_600_000),
        (datetime(2025, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1_735_689_600_000),
        (datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1_735_689_600_001),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), -1000),
    ],
)
def test_an_eta_in_milliseconds(eta: datetime, expected: int) -> None:
    assert eta_ms(eta) == expected


@pytest.mark.parametrize("eta", [600, "2025-01-01", date(2025, 1, 1), None])
def test_an_eta_that_is_no_datetime_is_refused(eta: object) -> None:
    with pytest.raises(ConfigurationError, match=r"countdown=600"):
        eta_ms(cast(datetime, eta))


class Local:
    """A local clock that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def sample(clock: ServerClock, local: Local, *, ahead: float, trip: float, reply_share: float = 0.5) -> None:
    """One exchange with a server `ahead` seconds ahead; `reply_share` of the trip is the way back."""
    sent = local.now
    local.now += trip
    asked_at = sent + trip * (1 - reply_share)
    clock.sync(round((asked_at + ahead) * 1000), sent, local.now)


def test_before_any_reply_it_is_the_local_clock() -> None:
    assert ServerClock(Local()).now_ms() == 1_000_000


def test_one_reply_is_enough() -> None:
    clock = ServerClock(local := Local())
    sample(clock, local, ahead=600, trip=0.002)
    assert clock.offset == pytest.approx(600, abs=0.002)
    assert clock.now_ms() == pytest.approx((local.now + 600) * 1000, abs=2)


def test_a_slow_reply_changes_nothing() -> None:
    clock = ServerClock(local := Local())
    sample(clock, local, ahead=5, trip=0.001)
    before = clock.offset
    sample(clock, local, ahead=5, trip=3.0, reply_share=1.0)
    assert clock.offset == before


def test_a_server_clock_that_was_set_is_followed_even_over_a_slow_reply() -> None:
    clock = ServerClock(local := Local())
    sample(clock, local, ahead=5, trip=0.001)
    sample(clock, local, ahead=-600, trip=0.5)
    assert clock.offset == pytest.approx(-600, abs=0.25)


def test_a_slow_drift_is_followed() -> None:
    clock = ServerClock(local := Local())
    for i in range(100):
        sample(clock, local, ahead=i / 100, trip=0.001)
    assert clock.offset == pytest.approx(0.99, abs=0.002)


def test_a_reply_before_its_request_is_ignored() -> None:
    clock = ServerClock(Local())
    clock.sync(9_000_000, sent=1_000.0, received=999.0)
    assert clock.offset == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), min_size=1))
def test_the_estimate_is_never_worse_than_what_the_trips_allow(trips: list[tuple[float, float]]) -> None:
    clock = ServerClock(local := Local())
    for trip, share in trips:
        sample(clock, local, ahead=30, trip=trip, reply_share=share)
    # A steady server: at most half the first trip, or what a rejected sample leaves unnoticed.
    assert abs(clock.offset - 30) <= max(trip for trip, _ in trips) + 0.1
