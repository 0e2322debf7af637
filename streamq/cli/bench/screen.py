"""What `streamq bench` shows while it runs: a bar on a terminal, a line a run elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TextIO

import click

if TYPE_CHECKING:
    from streamq.cli.bench.scenarios import Stage

EVERY: Final = 0.1  # seconds between two pictures
PARTS: Final = 1_000  # of the bar, for each run: they take about as long as each other


class Progress:
    """The bar over all `runs`, with the rate of the present one and the time left for all."""

    def __init__(self, runs: int, out: TextIO) -> None:
        self._runs = runs
        self._ended = 0
        self._out = out
        self._drawn = 0
        self._draw: Callable[[int, str], None] | None = None  # on a terminal

    @contextmanager
    def shown(self) -> Generator[None]:
        """Keep the bar on the terminal."""
        if not self._out.isatty():
            yield
            return
        form, length = "%(bar)s %(info)s", self._runs * PARTS
        with click.progressbar(length=length, file=self._out, bar_template=form, item_show_func=_as_it_is) as bar:
            self._draw = bar.update
            yield

    def say(self, text: str) -> None:
        """A line about what is done."""
        click.echo(text, file=self._out)

    @asynccontextmanager
    async def following(self, name: str, stage: Stage) -> AsyncGenerator[Callable[[str], None]]:
        """Show how far one run is. It gives what takes a line about what it found."""
        if self._draw is None:
            yield lambda found: self.say(f"{name}: {found}")
            return
        moving = asyncio.create_task(self._move(self._draw, name, stage))
        try:
            yield lambda _: None
            self._ended += 1
        finally:
            moving.cancel()
            await asyncio.wait([moving])

    async def _move(self, draw: Callable[[int, str], None], name: str, stage: Stage) -> None:
        done, since = 0, time.perf_counter() - EVERY
        while True:
            part = min(1.0, stage.done / (stage.total or stage.jobs))
            at, now = round((self._ended + part) * PARTS), time.perf_counter()
            rate = (stage.done - done) / (now - since)
            words = [name, stage.doing, f"{rate:,.0f} jobs/s" if rate > 0 else ""]
            draw(max(0, at - self._drawn), ", ".join(filter(None, words)))
            self._drawn, done, since = max(at, self._drawn), stage.done, now
            await asyncio.sleep(EVERY)


def _as_it_is(item: str | None) -> str | None:
    return item
