"""Signals as methods: what each is answered with. Of SIGTERM and SIGINT the first drains, the second cancels."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

logger = logging.getLogger("streamq.worker")
STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class TwoStops:
    """Counts the requests to stop.

    stops = TwoStops(worker.stop, worker.cancel)
    stops("SIGTERM")        # drains; once more: cancels
    """

    def __init__(self, drain: Callable[[], None], cancel: Callable[[], None]) -> None:
        self._drain = drain
        self._cancel = cancel
        self._first = True

    def __call__(self, name: str) -> None:
        """One more request, from the signal of that name."""
        if self._first:
            self._first = False
            logger.warning("%s: no new jobs, the running ones may end; once more cancels them", name)
            self._drain()
        else:
            logger.warning("%s again: the running jobs are cancelled and given back", name)
            self._cancel()


@contextmanager
def handled(drain: Callable[[], None], cancel: Callable[[], None]) -> Generator[None]:
    """Handle SIGTERM and SIGINT while inside, as `answered` does."""
    stops = TwoStops(drain, cancel)
    with answered({number: partial(stops, number.name) for number in STOPS}):
        yield


@contextmanager
def answered(answers: Mapping[signal.Signals, Callable[[], object]]) -> Generator[None]:
    """Answer signals on the event loop while inside. Only in the main thread; what was there before comes back."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in answers}
    for number, answer in answers.items():
        loop.add_signal_handler(number, answer)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
