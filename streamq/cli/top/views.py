"""What `streamq top` knows at one moment."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from streamq.broker.broker import Broker
from streamq.broker.facts import gather_memory
from streamq.broker.inspector import Inspector, QueueInfo, WorkerInfo
from streamq.broker.rates import Rates, rates
from streamq.cli.overview import queue_row

QUEUES: Final = 200  # shown at most
ABREAST: Final = 8  # queues asked at once


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue, and how it has been doing."""

    info: QueueInfo
    rates: Rates

    def row(self) -> dict[str, Any]:
        """Its figures by name; seconds, and jobs a second."""
        found = self.rates
        return {
            **queue_row(self.info),
            "ended_per_second": found.ended,
            "failed_per_second": found.failed,
            "run_p50": found.run_p50,
            "run_p95": found.run_p95,
            "wait_p50": found.wait_p50,
            "wait_p95": found.wait_p95,
        }


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment. `at` is epoch ms by the server's clock."""

    where: str
    version: str
    memory: str
    at: int
    queues: list[QueueView]
    workers: list[WorkerInfo]
    took: float  # seconds
    omitted: int = 0
    problem: str = field(default="")  # why this is an old picture


async def look(broker: Broker) -> View:
    """Ask for everything. Raises `BrokerError`."""
    begun = time.perf_counter()
    inspector, names = Inspector(broker), await broker.queues()
    turn = asyncio.Semaphore(ABREAST)
    workers: dict[str, WorkerInfo] = {}

    async def one(name: str) -> QueueView:
        async with turn:
            workers.update({worker.id: worker for worker in await inspector.workers(name)})
            return QueueView(await inspector.queue(name), await rates(broker, name))

    queues = await asyncio.gather(*map(one, names[:QUEUES]))
    facts = broker.facts
    return View(
        broker.where,
        facts.version if facts is not None else "",
        await gather_memory(broker),
        broker.clock.now_ms(),
        list(queues),
        sorted(workers.values(), key=lambda worker: worker.id),
        time.perf_counter() - begun,
        max(0, len(names) - QUEUES),
    )
