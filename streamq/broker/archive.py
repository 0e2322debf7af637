"""A result store apart from the queue's Redis: another server, or another database number of the same one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from streamq.broker import scripts, wire
from streamq.broker.session import Session
from streamq.core.job import Delivery
from streamq.core.outcome import Bury, Complete, Settlement


class Kept(NamedTuple):
    """One finished record, and the ms it is to live."""

    job_id: str
    ttl: int
    record: bytes


class Archive(Session):
    """Finished records in a Redis of their own.

    The settling script writes the record beside the queue first, in one step with the acknowledgement; then it is
    copied here and removed there. So a record is never missing, and an attempt that lost its lease stores nothing.
    """

    async def keep(self, queue: str, records: Sequence[Kept]) -> None:
        """Store these. Doing it again does no harm. Raises as `ask` does."""
        call = scripts.keep(
            records=self.keys(queue).records,
            batch=msgspec.msgpack.encode([(kept.job_id, kept.ttl) for kept in records]),
            blobs=[kept.record for kept in records],
        )
        await self.ask(call)

    async def read(self, queue: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """The records of these jobs."""
        prefix = self.keys(queue).records
        return cast("list[bytes | None]", await self.command("MGET", *[prefix + job_id for job_id in job_ids]))


def finished(settlements: Sequence[tuple[Delivery, Settlement]], replies: Sequence[str]) -> list[Kept]:
    """The records that a turn wrote."""
    return [
        Kept(delivery.job_id, settlement.ttl, wire.encode_record(settlement.record))
        for (delivery, settlement), reply in zip(settlements, replies, strict=True)
        if reply in ("ok", "dup") and isinstance(settlement, Complete | Bury) and settlement.ttl > 0
    ]
