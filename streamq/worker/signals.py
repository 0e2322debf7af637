"""SIGTERM and SIGINT: the first drains, the second cancels."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
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
    """Handle both signals while inside. Only in the main thread; what was there before comes back."""
    loop = asyncio.get_running_loop()
    stops = TwoStops(drain, cancel)
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        loop.add_signal_handler(number, stops, number.name)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
