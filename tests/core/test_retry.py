"""Which failures are retried, and how long the wait is."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.core.retry import FOREVER, Backoff, RetryPolicy
from streamq.errors import ConfigurationError


def waits(policy: RetryPolicy, count: int = 4, draw: float = 1.0) -> list[float]:
    return [policy.delay(retries, random=lambda: draw) for retries in range(count)]


@pytest.mark.parametrize(
    ("backoff", "default_delay", "expected"),
    [
        (True, None, [1, 2, 4, 8]),
        (True, 7.0, [1, 2, 4, 8]),
        (3, None, [3, 6, 12, 24]),
        (0.5, 9.0, [0.5, 1, 2, 4]),
        ("fixed", None, [1, 1, 1, 1]),
        ("fixed", 5.0, [5, 5, 5, 5]),
        (None, None, [1, 2, 4, 8]),
        (None, 5.0, [5, 5, 5, 5]),
        (None, 0.0, [0, 0, 0, 0]),
        (False, None, [0, 0, 0, 0]),
        (False, 5.0, [5, 5, 5, 5]),
    ],
)
def test_the_forms_of_backoff(backoff: Backoff, default_delay: float | None, expected: list[float]) -> None:
    assert waits(RetryPolicy(backoff=backoff, default_delay=default_delay, jitter=False)) == expected


def test_jitter_is_anything_from_nothing_to_the_delay() -> None:
    policy = RetryPolicy(backoff=True)
    assert waits(policy, draw=0.0) == [0, 0, 0, 0]
    assert waits(policy, draw=0.5) == [0.5, 1, 2, 4]


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(backoff="fixed", default_delay=900),
        RetryPolicy(backoff=False, default_delay=900),
        RetryPolicy(default_delay=900),
        RetryPolicy(delays={Exception: 900}),
    ],
)
def test_a_delay_that_was_written_down_is_neither_shaken_nor_capped(policy: RetryPolicy) -> None:
    assert policy.delay(3, ValueError(), random=lambda: 0.1) == 900


@given(st.integers(0, 10_000), st.floats(1e-3, 1e10), st.floats(0, 1e10), st.floats(0, 1))
def test_a_growing_delay_stays_within_its_bounds(retries: int, factor: float, cap: float, draw: float) -> None:
    policy = RetryPolicy(backoff=factor, backoff_max=cap)
    assert 0 <= policy.delay(retries, random=lambda: draw) <= cap


@given(st.integers(0, 200), st.floats(1e-3, 1e6))
def test_a_growing_delay_never_shrinks(retries: int, factor: float) -> None:
    policy = RetryPolicy(backoff=factor, jitter=False)
    assert policy.delay(retries) <= policy.delay(retries + 1)


def test_ten_thousand_retries_wait_the_maximum() -> None:
    assert RetryPolicy(backoff=True, jitter=False).delay(10_000) == 600.0


def test_the_nearest_class_decides_the_delay() -> None:
    policy = RetryPolicy(
        backoff="fixed",
        delays={OSError: 10.0, ConnectionError: 20.0, Exception: lambda retries: retries + 0.5},
    )
    assert policy.delay(2, ConnectionResetError()) == 20
    assert policy.delay(2, FileNotFoundError()) == 10
    assert policy.delay(2, ValueError()) == 2.5
    assert policy.delay(2, KeyboardInterrupt()) == 1
    assert policy.delay(2) == 1


def broken(retries: int) -> float:
    raise RuntimeError("no idea")


def nonsense(answer: float | None) -> Callable[[int], float]:
    return lambda retries: cast(float, answer)


@pytest.mark.parametrize("delay", [broken, *(nonsense(each) for each in (-1.0, math.nan, math.inf, None))])
def test_a_delay_function_that_fails_is_logged_and_replaced_by_the_backoff(
    delay: Callable[[int], float], caplog: pytest.LogCaptureFixture
) -> None:
    policy = RetryPolicy(backoff=True, jitter=False, delays={OSError: delay})
    with caplog.at_level(logging.ERROR, "streamq.retry"):
        assert policy.delay(3, OSError()) == 8
    assert "OSError" in caplog.text


def test_only_what_is_listed_is_retried() -> None:
    policy = RetryPolicy(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), delays={KeyError: 1.0})
    assert policy.wants(ConnectionError())
    assert policy.wants(KeyError())
    assert not policy.wants(FileNotFoundError())
    assert not policy.wants(ValueError())
    assert not RetryPolicy().wants(Exception())


@pytest.mark.parametrize("exc", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)])
def test_an_end_from_outside_is_never_retried(exc: BaseException) -> None:
    assert not RetryPolicy(autoretry_for=(BaseException,), delays={BaseException: 1.0}).wants(exc)


def test_celery_names_make_a_policy() -> None:
    policy = RetryPolicy.of(
        max_retries=5,
        default_retry_delay="3m",
        autoretry_for=[OSError],
        dont_autoretry_for=FileNotFoundError,
        retry_backoff="2s",
        retry_backoff_max="10m",
        retry_jitter=False,
        retry_delays={KeyError: "1m", ValueError: float},
    )
    assert policy == RetryPolicy(
        max_retries=5,
        default_delay=180.0,
        backoff=2.0,
        backoff_max=600.0,
        jitter=False,
        autoretry_for=(OSError,),
        dont_autoretry_for=(FileNotFoundError,),
        delays={KeyError: 60.0, ValueError: float},
    )


def test_nothing_given_is_the_default_or_the_base() -> None:
    base = RetryPolicy(max_retries=9, backoff=True, autoretry_for=(OSError,), delays={KeyError: 1.0})
    assert RetryPolicy.of() == RetryPolicy()
    assert RetryPolicy.of(base=base) == base
    changed = RetryPolicy.of(base=base, max_retries=0, autoretry_for=())
    assert (changed.max_retries, changed.autoretry_for, changed.backoff) == (0, (), True)


def test_a_delay_of_the_task_replaces_a_growing_backoff_of_the_base() -> None:
    base = RetryPolicy(backoff=True)
    assert waits(RetryPolicy.of(base=base, default_retry_delay=5)) == [5, 5, 5, 5]
    assert waits(RetryPolicy.of(base=base, retry_kwargs={"countdown": 5})) == [5, 5, 5, 5]
    assert waits(RetryPolicy.of(base=base, default_retry_delay=5, retry_backoff=True)) == [1, 2, 4, 8]
    assert RetryPolicy.of(base=RetryPolicy(backoff="fixed"), default_retry_delay=5).backoff == "fixed"


def test_retry_kwargs_win_as_in_celery() -> None:
    policy = RetryPolicy.of(max_retries=1, default_retry_delay=1, retry_kwargs={"max_retries": 7, "countdown": "9s"})
    assert (policy.max_retries, policy.default_delay) == (7, 9.0)
    assert RetryPolicy.of(retry_kwargs={"max_retries": None}).max_retries == FOREVER


@pytest.mark.parametrize(
    ("value", "expected"),
    [("fixed", "fixed"), (0, False), (False, False), (True, True), (2, 2.0), ("1m", 60.0)],
)
def test_retry_backoff_takes_every_form(value: Any, expected: Backoff) -> None:
    found = RetryPolicy.of(retry_backoff=value).backoff
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": 2.5}, "max_retries"),
        ({"default_retry_delay": -1}, "default_retry_delay"),
        ({"default_retry_delay": "soon"}, "default_retry_delay"),
        ({"retry_backoff": "linear"}, "retry_backoff"),
        ({"retry_backoff": -2}, "retry_backoff"),
        ({"retry_backoff_max": "x"}, "retry_backoff_max"),
        ({"retry_jitter": 1}, "retry_jitter"),
        ({"autoretry_for": (OSError, "TimeoutError")}, "autoretry_for"),
        ({"autoretry_for": int}, "autoretry_for"),
        ({"autoretry_for": "OSError"}, "autoretry_for"),
        ({"autoretry_for": 5}, "autoretry_for"),
        ({"autoretry_for": (asyncio.CancelledError,)}, "CancelledError"),
        ({"dont_autoretry_for": (7,)}, "dont_autoretry_for"),
        ({"retry_kwargs": {"eta": 5}}, "'eta'"),
        ({"retry_kwargs": {"countdown": -5}}, "countdown"),
        ({"retry_kwargs": {"max_retries": "3"}}, "max_retries"),
        ({"retry_kwargs": [1]}, "retry_kwargs"),
        ({"retry_delays": {OSError: -1}}, r"retry_delays\[OSError\]"),
        ({"retry_delays": {"OSError": 1}}, "retry_delays"),
        ({"retry_delays": [OSError]}, "retry_delays"),
    ],
)
def test_nonsense_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RetryPolicy.of(**options)


def test_cancellation_may_be_listed_as_not_retried() -> None:
    assert RetryPolicy.of(dont_autoretry_for=(asyncio.CancelledError,)).dont_autoretry_for


def test_policies_can_be_compared_and_hashed() -> None:
    assert hash(RetryPolicy(delays={OSError: 1.0})) == hash(RetryPolicy())
    assert RetryPolicy(delays={OSError: 1.0}) != RetryPolicy()
    assert cast(Any, RetryPolicy()).delays == {}
