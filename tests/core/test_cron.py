"""Schedules: cron expressions over both changes of the clock, intervals, and what users write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamq.core.cron import NICKNAMES, Cron, Every, Schedule, as_schedule, crontab, occurrences
from streamq.errors import ConfigurationError

YEAR_MS = 365 * 86_400_000


def ms(text: str) -> int:
    """Milliseconds of an ISO date; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def shown(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%m-%d %H:%M:%S").removesuffix(":00")


def from_then_on(schedule: Schedule, start: str, count: int) -> list[str]:
    return [shown(each) for each in occurrences(schedule, ms(start), ms(start) + 5 * YEAR_MS, count)]


# The clock changes, in UTC: Berlin 2025-03-30 01:00 (02:00 -> 03:00) and 10-26 01:00 (03:00 -> 02:00);
# New York 2025-03-09 07:00 (02:00 -> 03:00) and 11-02 06:00 (02:00 -> 01:00); Lord Howe 2025-10-04 15:30
# (02:00 -> 02:30 on the 5th) and 2025-04-05 15:00 (02:00 -> 01:30 on the 6th).
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
DST = [
    # A job at a fixed time in the skipped hour runs when that hour ends, once for all that it skips.
    (BERLIN, "30 2 * * *", "2025-03-28T12:00", ["03-29 01:30", "03-30 01:00", "03-31 00:30"]),
    (BERLIN, "0,20,40 2 * * *", "2025-03-29T12:00", ["03-30 01:00", "03-31 00:00", "03-31 00:20"]),
    (BERLIN, "0 2,3 * * *", "2025-03-29T12:00", ["03-30 01:00", "03-31 00:00", "03-31 01:00"]),
    (BERLIN, "15 30 2 * * *", "2025-03-28T12:00", ["03-29 01:30:15", "03-30 01:00", "03-31 00:30:15"]),
    (NEW_YORK, "30 2 * * *", "2025-03-08T12:00", ["03-09 07:00", "03-10 06:30"]),
    (LORD_HOWE, "15 2 * * *", "2025-10-03T12:00", ["10-03 15:45", "10-04 15:30", "10-05 15:15"]),
    # In the repeated hour it runs once, the first time.
    (BERLIN, "30 2 * * *", "2025-10-25T12:00", ["10-26 00:30", "10-27 01:30"]),
    (BERLIN, "30 2 * * *", "2025-10-26T00:45", ["10-27 01:30"]),
    (BERLIN, "30 2 * * *", "2025-10-26T01:15", ["10-27 01:30"]),
    (BERLIN, "15 30 2 * * *", "2025-10-25T12:00", ["10-26 00:30:15", "10-27 01:30:15"]),
    (NEW_YORK, "30 1 * * *", "2025-11-01T12:00", ["11-02 05:30", "11-03 06:30"]),
    (LORD_HOWE, "45 1 * * *", "2025-04-04T16:00", ["04-05 14:45", "04-06 15:15"]),
    # Outside these hours it keeps its time on the wall.
    (BERLIN, "0 3 * * *", "2025-03-28T12:00", ["03-29 02:00", "03-30 01:00", "03-31 01:00"]),
    (BERLIN, "0 3 * * *", "2025-10-24T12:00", ["10-25 01:00", "10-26 02:00", "10-27 02:00"]),
    (NEW_YORK, "0 12 * * *", "2025-03-07T18:00", ["03-08 17:00", "03-09 16:00"]),
    (LORD_HOWE, "0 9 * * *", "2025-10-03T00:00", ["10-03 22:30", "10-04 22:00"]),
    # Any other job runs whenever the wall shows its time: in both passes, and never in the skipped hour.
    (BERLIN, "*/30 * * * *", "2025-03-30T00:15", ["03-30 00:30", "03-30 01:00", "03-30 01:30"]),
    (BERLIN, "*/30 2 * * *", "2025-03-29T12:00", ["03-31 00:00", "03-31 00:30"]),
    (
        BERLIN,
        "*/30 2 * * *",
        "2025-10-25T12:00",
        ["10-26 00:00", "10-26 00:30", "10-26 01:00", "10-26 01:30"],
    ),
    (BERLIN, "45 * * * *", "2025-10-25T23:50", ["10-26 00:45", "10-26 01:45", "10-26 02:45"]),
    (BERLIN, "0 * * * *", "2025-10-25T23:30", ["10-26 00:00", "10-26 01:00", "10-26 02:00"]),
    (NEW_YORK, "0 */2 * * *", "2025-03-09T05:30", ["03-09 08:00", "03-09 10:00"]),
    (NEW_YORK, "30 * * * *", "2025-11-02T05:00", ["11-02 05:30", "11-02 06:30", "11-02 07:30"]),
    (NEW_YORK, "* 1 * * *", "2025-11-02T05:58", ["11-02 05:59", "11-02 06:00", "11-02 06:01"]),
    (LORD_HOWE, "*/20 * * * *", "2025-10-04T15:00", ["10-04 15:10", "10-04 15:40", "10-04 16:00"]),
    (LORD_HOWE, "*/15 3 * * *", "2025-10-04T12:00", ["10-04 16:00", "10-04 16:15", "10-04 16:30"]),
    (LORD_HOWE, "*/20 * * * *", "2025-04-05T14:30", ["04-05 14:40", "04-05 15:10", "04-05 15:30"]),
    (LORD_HOWE, "*/30 2 * * *", "2025-04-05T12:00", ["04-05 15:30", "04-05 16:00", "04-06 15:30"]),
    (LORD_HOWE, "45 * * * *", "2025-04-05T14:00", ["04-05 14:45", "04-05 15:15", "04-05 16:15"]),
]


@pytest.mark.parametrize(("tz", "expression", "start", "expected"), DST)
def test_both_changes_of_the_clock(tz: str, expression: str, start: str, expected: list[str]) -> None:
    assert from_then_on(Cron(expression, tz), start, len(expected)) == expected


@pytest.mark.parametrize(("tz", "expression", "start", "expected"), DST)
def test_the_latest_over_both_changes_is_the_last_that_came_after(
    tz: str, expression: str, start: str, expected: list[str]
) -> None:
    cron = Cron(expression, tz)
    due = list(occurrences(cron, ms(start), ms(start) + 5 * YEAR_MS, len(expected)))
    for earlier, later in zip([None, *due], [*due, None], strict=True):
        if later is not None:
            assert cron.latest(later, ms(start)) == later
            assert cron.latest(later - 1, ms(start)) == earlier


CHANGES = [
    *((BERLIN, "2025-03-30T01:00"), (BERLIN, "2025-10-26T01:00"), (NEW_YORK, "2025-03-09T07:00")),
    *((NEW_YORK, "2025-11-02T06:00"), (LORD_HOWE, "2025-10-04T15:30"), (LORD_HOWE, "2025-04-05T15:00")),
]
MINUTES = st.sampled_from(["*", "*/7", "*/15", "*/20", "0", "15", "30,45", "10-12"])
HOURS = st.sampled_from(["*", "*/2", "1", "2", "3", "1-3", "0", "23"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CHANGES), MINUTES, HOURS)
def test_minute_by_minute_around_a_change(change: tuple[str, str], minute: str, hour: str) -> None:
    tz, turn = change
    begin, end = ms(turn) - 5 * 3_600_000, ms(turn) + 5 * 3_600_000
    wall = Wall(tz, minute, hour)
    expected = [each for each in range(begin + 60_000, end + 1, 60_000) if wall.is_due(each)]
    assert list(occurrences(Cron(f"{minute} {hour} * * *", tz), begin, end, 10_000)) == expected


class Wall:
    """Debian's rules, asked of one minute at a time."""

    def __init__(self, tz: str, minute: str, hour: str) -> None:
        self.zone = ZoneInfo(tz)
        self.fixed = not minute.startswith("*") and not hour.startswith("*")
        fields = CronSim(f"{minute} {hour} * * *", datetime(2025, 1, 1))
        self.times = {(h, m) for h in fields.hours for m in fields.minutes}

    def at(self, moment_ms: int) -> datetime:
        return datetime.fromtimestamp(moment_ms // 1000, self.zone)

    def is_due(self, moment_ms: int) -> bool:
        now, before = self.at(moment_ms), self.at(moment_ms - 60_000).replace(tzinfo=None)
        if not self.fixed:
            return (now.hour, now.minute) in self.times
        shown: set[datetime] = {now.replace(tzinfo=None)} if now.fold == 0 else set()
        skipped = before + timedelta(minutes=1)
        while skipped < now.replace(tzinfo=None):
            shown.add(skipped)
            skipped += timedelta(minutes=1)
        return any((each.hour, each.minute) in self.times for each in shown)


EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/5 9-17 * * MON-FRI",
        "0 0 L * *",
        "0 0 LW * *",
        "30 2 * * 6L",
        "0 12 * * MON#2",
        "5 4 29 2 *",
        "0 0 1,15 * 3",
        "*/10 * * * * *",
        "0 0 31 * *",
        *NICKNAMES,
    ]
)
MOMENTS = st.integers(ms("2020-01-01"), ms("2040-01-01"))


@settings(max_examples=150, deadline=None)
@given(
    EXPRESSIONS,
    st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kolkata"]),
    MOMENTS,
    st.integers(0, 10**11),
)
def test_the_latest_is_the_one_before_the_next(expression: str, tz: str, now: int, back: int) -> None:
    cron = Cron(expression, tz)
    found = cron.latest(now, now - back)
    if found is None:
        assert cron.after(now - back) > now
    else:
        assert now - back < found <= now
        assert cron.after(found - 1) == found
        assert cron.after(found) == cron.after(now) > now


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS, MOMENTS)
def test_in_utc_it_says_what_cronsim_says(expression: str, now: int) -> None:
    simulator = CronSim(NICKNAMES.get(expression, expression), datetime.fromtimestamp(now // 1000, UTC))
    assert Cron(expression).after(now) == round(next(simulator).timestamp() * 1000)


@pytest.mark.parametrize(
    ("expression", "since"), [("* * * * * *", 0), ("*/5 * * * *", 0), ("0 0 29 2 *", 0), ("0 0 29 2 */7", 0)]
)
def test_the_latest_after_years_asks_few_questions(
    expression: str, since: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, after = 0, Cron.after

    def counted(self: Cron, moment: int) -> int:
        nonlocal asked
        asked += 1
        return after(self, moment)

    monkeypatch.setattr(Cron, "after", counted)
    assert Cron(expression, BERLIN).latest(ms("2025-06-01"), since)
    assert asked < 80


def test_nothing_between_is_none() -> None:
    cron = Cron("0 3 * * *")
    assert cron.latest(ms("2025-01-02T02:59"), ms("2025-01-01T03:00")) is None
    assert cron.latest(ms("2025-01-01T03:00"), ms("2025-01-01T03:00")) is None
    assert cron.latest(ms("2025-01-01T03:00"), ms("2025-01-05")) is None
    assert cron.latest(ms("2025-01-01T03:00"), ms("2025-01-01T03:00") - 1) == ms("2025-01-01T03:00")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("@hourly", "2025-06-18T13:00"),
        ("@daily", "2025-06-19"),
        ("@midnight", "2025-06-19"),
        ("@weekly", "2025-06-22"),
        ("@monthly", "2025-07-01"),
        ("@yearly", "2026-01-01"),
        ("@annually", "2026-01-01"),
    ],
)
def test_nicknames(name: str, expected: str) -> None:
    assert Cron(name).after(ms("2025-06-18T12:34:56.789")) == ms(expected)


def test_milliseconds_before_and_at_an_occurrence() -> None:
    cron = Cron("0 3 * * *")
    assert cron.after(ms("2025-01-01T03:00") - 1) == ms("2025-01-01T03:00")
    assert cron.after(ms("2025-01-01T03:00")) == ms("2025-01-02T03:00")
    assert cron.after(ms("2025-01-01T03:00") + 1) == ms("2025-01-02T03:00")


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "'61' is no valid minute"),
        ("* 24 * * *", "'24' is no valid hour"),
        ("0 0 32 * *", "'32' is no valid day-of-month"),
        ("0 0 * JANUARY *", "'JANUARY' is no valid month"),
        ("0 0 * * FUN", "'FUN' is no valid day-of-week"),
        ("60 * * * * *", "'60' is no valid second"),
        ("*/0 * * * *", "'\\*/0' is no valid minute"),
        ("0 0 31 2 *", "day-of-month|never"),
        ("0 0 30 FEB *", "day-of-month|never"),
        ("* * *", "has 3 fields"),
        ("", "has 0 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("@fortnightly", "@weekly"),
        ("? ? ? ? ?", "minute"),
    ],
)
def test_a_bad_expression_names_the_field_and_shows_an_example(expression: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Cron(expression)
    assert repr(expression) in str(caught.value)
    assert "'0 3 * * *'" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789*/,-#LWSUNMO@? ", max_size=20))
@example("L/2 * * * *")
@example("0 0 L/2 * *")
@example("0 0 * * 1L#2")
@example("0 0 8-9 * 1#1")
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = Cron(text)
    except ConfigurationError:
        return
    assert cron.after(ms("2025-01-01")) > ms("2025-01-01")


@pytest.mark.parametrize(
    ("tz", "said"),
    [
        ("Europe/Berln", "Did you mean Europe/Berlin"),
        ("Europe", "not a known"),
        ("../etc", "not a known"),
        ("Mars", "tz='Mars'"),
        ("\x00", "not a known"),
    ],
)
def test_an_unknown_time_zone_is_refused(tz: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Cron("@daily", tz)


def test_no_expression_at_all() -> None:
    with pytest.raises(ConfigurationError, match="is not a str"):
        Cron(5)  # type: ignore[arg-type]


@given(st.integers(1, 10**10), st.integers(0, 10**13), st.integers(0, 10**10))
def test_an_interval_counts_from_the_epoch(interval_ms: int, now: int, back: int) -> None:
    every = Every(timedelta(milliseconds=interval_ms))
    following, newest = every.after(now), every.latest(now, now - back)
    assert following % interval_ms == 0
    assert now < following <= now + interval_ms
    assert newest == (following - interval_ms if following - interval_ms > now - back else None)


@pytest.mark.parametrize("interval", [0, "0s", -1, "soon", True, float("nan")])
def test_an_interval_that_is_none_is_refused(interval: Any) -> None:
    with pytest.raises(ConfigurationError, match="every="):
        Every(interval)


@pytest.mark.parametrize(
    ("schedule", "expression"),
    [
        (crontab(), "* * * * *"),
        (crontab(minute=0, hour=3), "0 3 * * *"),
        (crontab(0, "*/3", "mon-fri"), "0 */3 * * mon-fri"),
        (crontab(minute=[0, 30], hour=range(9, 12)), "0,30 9,10,11 * * *"),
        (crontab(minute={"5", "30", "15", "45"}, month_of_year=(1, "6-7")), "15,30,45,5 * * 1,6-7 *"),
        (crontab(minute="0, 30", hour="22-2"), "0,30 22,23,0,1,2 * * *"),
        (crontab(day_of_week="fri-mon"), "* * * * 5,6,0,1"),
        (crontab(day_of_week="sunday,Thursday"), "* * * * sun,Thu"),
        (crontab(month_of_year="10-3/2"), "* * * 10,12,2 *"),
        (crontab(minute="50-10/5"), "50,55,0,5,10 * * * *"),
        (crontab(day_of_month="1-7", day_of_week=1), "* * 1-7 * 1"),
    ],
)
def test_crontab_as_celery_writes_it(schedule: Cron, expression: str) -> None:
    assert schedule.expression == expression


def test_crontab_wants_both_days_as_celery_does() -> None:
    fridays = crontab(0, 0, day_of_week="fri", day_of_month=13)
    assert from_then_on(fridays, "2025-01-01", 3) == ["06-13 00:00", "02-13 00:00", "03-13 00:00"]
    assert from_then_on(Cron("0 0 13 * fri"), "2025-01-01", 3) == [
        "01-03 00:00",
        "01-10 00:00",
        "01-13 00:00",
    ]
    assert fridays != Cron("0 0 13 * fri")
    assert crontab(0, 0, day_of_month=13) == Cron("0 0 13 * *")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minute": True}, "crontab\\(minute=True\\)"),
        ({"minute": []}, "crontab\\(minute="),
        ({"hour": ""}, "crontab\\(hour="),
        ({"hour": "1,,2"}, "crontab\\(hour="),
        ({"hour": 1.5}, "crontab\\(hour="),
        ({"hour": None}, "crontab\\(hour="),
        ({"minute": 60}, "'60' is no valid minute"),
        ({"day_of_week": "fun"}, "'fun' is no valid day-of-week"),
        ({"day_of_month": 31, "month_of_year": 2, "day_of_week": 1}, "never comes true"),
        ({"tz": "Mars"}, "time zone"),
    ],
)
def test_a_crontab_that_cannot_be_read(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        crontab(**options)


class Fortnight:
    """A schedule of a user's own."""

    def after(self, ms: int) -> int:
        return ms + 1

    def latest(self, ms: int, since: int) -> int | None:
        return None


OWN = Fortnight()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 3 * * *", Cron("0 3 * * *", BERLIN)),
        (" @daily", Cron("@daily", BERLIN)),
        ("*/10 * * * * *", Cron("*/10 * * * * *", BERLIN)),
        ("90s", Every(90)),
        ("30", Every(30)),
        (30.0, Every(30)),
        (5, Every(5)),
        (timedelta(hours=1), Every("1h")),
        (crontab(minute=0), Cron("0 * * * *", BERLIN)),
        (crontab(minute=0, tz="UTC"), Cron("0 * * * *", "UTC")),
        (Cron("0 3 * * *", NEW_YORK), Cron("0 3 * * *", NEW_YORK)),
        (Every(7), Every(7)),
        (OWN, OWN),
    ],
)
def test_what_a_user_writes_is_a_schedule(value: Any, expected: Schedule) -> None:
    found = as_schedule(value, BERLIN)
    assert found == expected
    assert isinstance(found, Schedule)


@pytest.mark.parametrize("value", [None, True, b"90s", ["90s"], "daily", "* * *", 0])
def test_what_is_no_schedule_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"90s|fields"):
        as_schedule(value, "UTC")


def test_occurrences_stop_at_the_end_or_the_limit() -> None:
    assert list(occurrences(Every(60), 0, 180_000, 10)) == [60_000, 120_000, 180_000]
    assert list(occurrences(Every(60), 0, 180_000, 2)) == [60_000, 120_000]
    assert list(occurrences(Every(60), 0, 59_999, 2)) == []


@pytest.mark.parametrize(
    ("schedule", "representation", "text"),
    [
        (Every("1h30m"), "Every(5400.0)", "every 1h30m"),
        (Every("250ms"), "Every(0.25)", "every 250ms"),
        (Cron("0  3 * * *", BERLIN), "Cron('0 3 * * *', tz='Europe/Berlin')", "0 3 * * * Europe/Berlin"),
        (Cron("@daily"), "Cron('@daily')", "@daily UTC"),
        (crontab(0, 0, 5, 13), "Cron('0 0 13 * 5', both_days=True)", "0 0 13 * 5 on both days UTC"),
    ],
)
def test_schedules_print_nicely(schedule: Schedule, representation: str, text: str) -> None:
    assert repr(schedule) == representation
    assert str(schedule) == text
    assert eval(representation, {"Every": Every, "Cron": Cron}) == schedule
    assert len({schedule, eval(representation, {"Every": Every, "Cron": Cron})}) == 1


@pytest.mark.parametrize("make", [lambda: Cron("*/5 * * * *", BERLIN), lambda: Cron("0 3 * * *", BERLIN)])
def test_asking_leaves_no_trace(make: Callable[[], Cron]) -> None:
    cron, now = make(), ms("2025-06-01")
    first = cron.after(now)
    cron.after(now + YEAR_MS)
    cron.latest(now - YEAR_MS, 0)
    assert cron.after(now) == first
