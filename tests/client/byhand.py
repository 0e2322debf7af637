"""A hand-driven worker: the client is tested without the worker's floor."""

from __future__ import annotations

import itertools
from typing import Any

from streamq import StreamQ
from streamq.broker import wire
from streamq.broker.broker import Broker
from streamq.core.job import Delivery, Failure, Reason, Record, State
from streamq.core.outcome import NIL, Bury, Complete, Reschedule, Settlement

NOW = 1_750_000_000_000
ERROR = Failure("builtins.ValueError", "no", "Traceback: line 7", NOW, 1, "w1")


def record(
    state: State, result: Any = None, *, error: Failure | None = None, reason: str = "", task: str = "task"
) -> Record:
    raw = NIL if result is None else wire.encode_value(result)
    failures = [error] if error else []
    return Record(1, state, task, raw, error, reason, NOW, NOW + 1000, NOW + 3000, "w1", 1, 0, failures)


class Hand:
    def __init__(self, app: StreamQ[Any], queue: str = "default") -> None:
        self._app = app
        self._queue = queue
        self._requests = itertools.count(1)

    @property
    def _broker(self) -> Broker:
        return self._app.broker

    async def take(self, want: int = 10) -> list[Delivery]:
        await self._app.open()
        await self._broker.prepare(self._queue)
        turn = await self._broker.turn(self._queue, "hand", [], want, request=next(self._requests))
        return turn.deliveries

    async def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        pairs = [(delivery, settlement)]
        turn = await self._broker.turn(self._queue, "hand", pairs, 0, request=next(self._requests))
        assert turn.replies == ["ok"]

    async def succeed(self, delivery: Delivery, result: Any = None) -> None:
        await self.settle(delivery, Complete(record(State.SUCCESS, result), 60_000))

    async def bury(self, delivery: Delivery, reason: Reason = Reason.FAILED) -> None:
        job = None if reason is Reason.UNREADABLE else wire.decode_job(delivery.body, 1_000_000)
        task = job.task if job else ""
        end = record(State.FAILURE, error=ERROR, reason=reason.value, task=task)
        await self.settle(delivery, Bury(end, 60_000, reason, job))

    async def postpone(self, delivery: Delivery, state: State) -> None:
        job = wire.decode_job(delivery.body, 1_000_000)
        await self.settle(delivery, Reschedule(job, 60_000, state))
