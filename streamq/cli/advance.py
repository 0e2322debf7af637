"""A bar for whatever takes long, with rate and time left: on a terminal's stderr, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic

import click


@contextmanager
def advance(label: str, total: int | None) -> Generator[Callable[[int], None]]:
    """Gives a function that is told of each part that is done.

    with advance("cancelling", 1_200) as done:
        done(500)
    """
    if not sys.stderr.isatty() or not total:
        yield lambda _: None
        return
    since, seen = monotonic(), 0
    template = f"{label}  [%(bar)s]  %(info)s"
    with click.progressbar(
        length=total, file=sys.stderr, show_pos=True, show_eta=True, bar_template=template, item_show_func=_as_it_is
    ) as bar:

        def done(count: int) -> None:
            nonlocal seen
            seen += count
            rate = seen / max(monotonic() - since, 0.001)
            bar.update(count, f"{rate:,.0f}/s")

        yield done


def _as_it_is(item: str | None) -> str | None:
    return item
