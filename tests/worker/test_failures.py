"""Exceptions as they are stored."""

from __future__ import annotations

from streamq.core.limits import MAX_TRACEBACK
from streamq.worker.failures import MAX_MESSAGE, class_name, failure_of


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def stored(error: BaseException) -> tuple[str, str, str]:
    failure = failure_of(error, at=5, attempt=2, worker="w")
    assert (failure.at, failure.attempt, failure.worker) == (5, 2, "w")
    return failure.error, failure.message, failure.traceback


def test_class_message_and_place() -> None:
    def fail() -> None:
        secret = "hunter2"
        assert secret
        raise ValueError("no")

    try:
        fail()
    except ValueError as error:
        kind, message, trace = stored(error)
    assert (kind, message) == ("ValueError", "no")
    assert "in fail" in trace
    assert trace.count("hunter2") == 0  # locals are never written down


def test_classes_of_modules_are_named_in_full() -> None:
    assert class_name(Mute).endswith("test_failures.Mute")


def test_an_exception_that_cannot_say_what_it_is() -> None:
    _, message, _ = stored(Mute())
    assert "cannot be shown: RuntimeError" in message


def test_long_ones_are_cut() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 100_000)

    try:
        deep(50)
    except ValueError as error:
        _, message, trace = stored(error)
    assert len(message) == MAX_MESSAGE
    assert len(trace) <= MAX_TRACEBACK


def test_what_is_no_text_becomes_text() -> None:
    _, message, trace = stored(ValueError("\ud800"))
    message.encode()
    trace.encode()
