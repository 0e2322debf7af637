"""The end of a job that was acknowledged before it ran (`acks_early`): the entry is gone, its record is not."""

from __future__ import annotations

import asyncio

from streamq.broker.broker import Broker, NewJob
from streamq.broker.wire import encode_job, encode_record
from streamq.core.outcome import Bury, Complete, Drop, Release, Reschedule, Settlement
from streamq.worker.held import Holding
from streamq.worker.patience import GaveUp, persist


async def conclude(broker: Broker, holding: Holding, settlement: Settlement, stopping: asyncio.Event) -> bool:
    """Keep the record; a retry is enqueued anew. What a shutdown interrupted is over: it was to start once at most.

    False if Redis was not told.
    """
    queue, job_id = holding.delivery.queue, holding.delivery.job_id

    async def apply() -> None:
        match settlement:
            case Complete(record, ttl) | Bury(record, ttl):
                if ttl:
                    await broker.store(queue, job_id, encode_record(record), ttl)
            case Reschedule(job, delay):
                await broker.add(queue, [NewJob(job_id, encode_job(job), holding.delivery.priority, delay=delay)])
            case Release() | Drop():
                pass

    try:
        await persist(apply, what=f"job {job_id}", where=broker.connections.address, stopping=stopping)
    except GaveUp:
        return False
    return not isinstance(settlement, Drop)
