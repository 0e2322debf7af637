"""One of the two turns that a lane may have under way."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from streamq.broker.broker import Broker, Turn
from streamq.worker.lane import Lane
from streamq.worker.patience import GaveUp, persist

OVERLAP: Final = 2  # turns of a lane: while Redis works on one, the jobs that the other brought run


class Flight:
    """Settles and fetches for one lane, one round trip after the other, each tried until Redis answers.

    The two flights of a lane share a connection. Each counts its own requests: Redis keeps the last answer of
    each, so that a turn whose reply was lost is answered again, and a late copy of an older one is known as such.
    """

    def __init__(self, broker: Broker, lane: Lane, consumer: str, number: int) -> None:
        self.name = lane.name if not number else f"{lane.name} ({number + 1})"
        self._broker = broker
        self._lane = lane
        self._consumer = consumer
        self._number = number
        self._request = 0

    async def run(self) -> None:
        """Take a turn whenever there is a reason, until cancelled or given up."""
        task, lane = asyncio.current_task(), self._lane
        try:
            while task is not None and not task.cancelling():  # a connection that is made can lose a cancellation
                async with lane.gate:  # one waits for a reason, the other is under way or waits here
                    await lane.bell.wait()
                    lane.bell.clear()
                await self.turn()
        except GaveUp:
            pass

    async def turn(self) -> None:
        """One round trip at most."""
        lane = self._lane
        boarded = lane.board()
        if boarded is None:
            return
        load = boarded
        self._request += 1
        pairs = [(holding.delivery, settlement) for holding, settlement in load.batch]
        tries, sent = 0, 0.0

        async def once() -> Turn:
            nonlocal load, tries, sent
            if tries:
                load = lane.lift(load)
            tries, sent = tries + 1, time.monotonic()
            try:
                return await self._broker.turn(
                    lane.queue,
                    self._consumer,
                    pairs,
                    load.want,
                    request=self._request,
                    flight=self._number,
                    heard=load.heard,
                )
            except BaseException:
                lane.ground(load)
                raise

        turn = await persist(once, what=self.name, where=self._broker.connections.address, stopping=lane.gave_up)
        lane.landed(load, turn, sent)
