"""The one way in which a worker waits for Redis to come back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from streamq.broker.connect import Address, describe, is_foreign, is_full, is_transient
from streamq.broker.retrying import LONGEST, backoff
from streamq.client.app import Application
from streamq.errors import BrokerUnavailable
from streamq.worker.rest import rest

FIRST_SILENCE: Final = 0.2  # seconds
logger = logging.getLogger("streamq.worker")
T = TypeVar("T")


class Outage:
    """What is said while Redis is away: of all that wait for it only one speaks at a time, and ever more rarely."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._silent_until = 0.0
        self._silence = FIRST_SILENCE
        self._failing = False

    def goes_on(self, what: str, where: Address | str, error: BaseException, pause: float) -> None:
        """A try failed, and the next comes in `pause` seconds."""
        now = time.monotonic()
        loud = logging.ERROR if is_foreign(error) else logging.WARNING
        level = logging.DEBUG if now < self._silent_until else loud
        if level == loud:
            self._silent_until = now + self._silence
            self._silence = min(self._silence * 2, LONGEST)
        self._failing = True
        logger.log(level, "%s: %s; next try in %.1f s", what, describe(error, where), pause)

    def is_over(self, what: str) -> None:
        """A try succeeded."""
        if self._failing:
            self._begin()
            logger.info("%s: Redis answers again", what)


_outages: dict[str, Outage] = {}


def outage(where: Address | str) -> Outage:
    """The outage of one server, as all of this process see it."""
    return _outages.setdefault(str(where), Outage())


class GaveUp(Exception):
    """The worker stopped while it was trying."""


def may_pass(error: BaseException) -> bool:
    """Whether to go on trying: also with a full server, and with a foreign key that somebody has to delete."""
    return is_transient(error) or is_full(error) or is_foreign(error)


async def persist(call: Callable[[], Awaitable[T]], *, what: str, where: Address | str, stopping: asyncio.Event) -> T:
    """Call until Redis answers; the log tells of tries that failed. Errors that do not pass are raised.

    Raises `GaveUp` if `stopping` is set while Redis is away.
    """
    failed = False
    for pause in backoff():
        try:
            result = await call()
        except Exception as error:
            if not may_pass(error):
                raise
            failed = True
            outage(where).goes_on(what, where, error, pause)
            if await rest(pause, stopping):
                raise GaveUp(what) from error
        else:
            if failed:
                outage(where).is_over(what)
            return result
    raise AssertionError("the backoff has no end")


async def opened(app: Application[Any], *, what: str, stopping: asyncio.Event, tries: int | None = None) -> None:
    """Open the application as soon as Redis can be reached.

    Raises `BrokerUnavailable` after so many `tries` (None: never), `GaveUp` if `stopping` is set meanwhile, and
    `UnsuitableServer`.
    """
    for tried, pause in enumerate(backoff(), start=1):
        try:
            await app.open(timeout=0)
        except BrokerUnavailable as error:
            if tried == tries:
                raise
            logger.warning("%s: %s; next try in %.1f s", what, error, pause)
            if await rest(pause, stopping):
                raise GaveUp(what) from error
        else:
            return
