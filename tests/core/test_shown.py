"""Text for people."""

from __future__ import annotations

import pytest

from streamq.core.shown import counted, one_line, printable, short


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b", "a  b"),  # nothing in it is a control character: as it is
        ("a\n\t b", "a b"),
        ("a\r\nb\u2028c", "a b c"),  # Windows' line breaks, and Unicode's
        ("a\x1b[31mb\n", "a\ufffd[31mb"),
        ("\u202eb", "\ufffdb"),  # would turn the line round
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert shown.isprintable()


def test_printable_keeps_the_lines() -> None:
    assert printable("a\n\tb\x07") == "a\n\tb\ufffd"


def test_short() -> None:
    assert [short("abcd", most) for most in (3, 4, 5)] == ["ab…", "abcd", "abcd"]


def test_counted() -> None:
    assert [counted(number, "job") for number in (0, 1, 1_200)] == ["0 jobs", "1 job", "1,200 jobs"]
