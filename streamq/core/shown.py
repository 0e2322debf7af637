"""Text for people. What came from outside could command a terminal, or forge a line: an exception's message could."""

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
    return text if text.isprintable() else printable(" ".join(text.split()))


def short(text: str, most: int) -> str:
    """At most so many characters of it.

    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "job"), counted(1_200, "dead letter")
    ('1 job', '1,200 dead letters')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """A number of bytes.

    >>> size(12), size(1_500_000)
    ('12 B', '1.5 MB')
    """
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
