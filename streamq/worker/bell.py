"""Hears the bell of every queue: wake-ups only, which may be missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from streamq.broker.broker import Broker
from streamq.broker.connect import is_transient
from streamq.broker.retrying import backoff
from streamq.worker.patience import outage


@dataclass(frozen=True, slots=True)
class Ringers:
    """Whom the bell of one queue wakes."""

    due: Callable[[], None]  # a job is due earlier than all before
    cancel: Callable[[str], None]  # somebody cancels this job
    released: Callable[[], None]  # a job was given back
    paused: Callable[[bool], None]  # nobody may take jobs any more, or they may again
    missed: Callable[[], None]  # a cancellation or a pause may have rung before anybody listened


class Bell:
    """One subscription a worker."""

    name = "bell"

    def __init__(self, broker: Broker, ringers: Mapping[str, Ringers]) -> None:
        self._broker = broker
        self._ringers = {broker.bell(queue).encode(): each for queue, each in ringers.items()}

    async def run(self) -> None:
        """Listen until cancelled."""
        pauses, task = backoff(), asyncio.current_task()
        # redis-py loses a cancellation that arrives just when a reply does: ask whether there was one.
        while task is not None and not task.cancelling():
            try:
                async with self._broker.connections.subscribed(*self._ringers) as subscription:
                    while not task.cancelling():
                        self.hear(cast("Mapping[str, Any] | None", await subscription.get_message(timeout=5.0)))
                        pauses = backoff()
                return
            except Exception as error:
                if not is_transient(error):
                    raise
                pause = next(pauses)
                where = self._broker.connections.address
                outage(where).goes_on("bell", where, error, pause)
            await asyncio.sleep(pause)

    def hear(self, message: Mapping[str, Any] | None) -> None:
        """Pass one message on. What is not understood comes from a newer release, and is left alone."""
        ringers = self._ringers.get(message["channel"]) if message else None
        if not message or ringers is None:
            return
        if message["type"] == "subscribe":  # what rang before was not heard
            ringers.due()
            ringers.released()
            ringers.missed()
        if message["type"] != "message":
            return
        what, _, about = bytes(message["data"]).partition(b" ")
        match what:
            case b"due":
                ringers.due()
            case b"cancel":
                ringers.cancel(about.decode(errors="replace"))
            case b"released":
                ringers.released()
            case b"paused":
                ringers.paused(True)
            case b"resumed":
                ringers.paused(False)
            case _:
                pass
