"""Text that came from outside, as it may be shown: an exception's message could command a terminal, or forge a line."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text without control characters; line breaks and tabs stay.

    >>> printable("a\\x1b[31mb\\n")
    'a\\ufffd[31mb\\n'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)


def one_line(text: str) -> str:
    """The same on one line.

    >>> one_line("a\\n  b")
    'a b'
    """
    return text if text.isprintable() else " ".join(printable(text).split())
