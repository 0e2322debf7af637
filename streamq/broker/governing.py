"""The verbs of those who govern queues: pause, resume, purge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from streamq.broker import scripts
from streamq.broker.archive import Kept
from streamq.broker.producing import Producing
from streamq.broker.values import Pause
from streamq.core.limits import IDEMPOTENCY_TTL_MS


class Governing(Producing):
    """Who may take jobs of a queue, and what becomes of those that nobody has taken."""

    async def pause(self, queue: str, reason: str = "") -> Pause:
        """Let nobody take jobs of this queue until `resume`. One that is paused already stays so since then."""
        await self.translated(self.announce(queue))
        k = self.keys(queue)
        since = await self.ask(scripts.pause(paused=k.paused, now=self.now(), bell=k.bell, reason=reason))
        return Pause(cast(int, since), reason)

    async def resume(self, queue: str) -> bool:
        """Let workers take jobs again, at once; whether the queue was paused."""
        k = self.keys(queue)
        return bool(await self.ask(scripts.resume(paused=k.paused, bell=k.bell)))

    async def paused(self, queue: str) -> Pause | None:
        """Since when nobody may take jobs, and why; None if they may."""
        found = await self.command("HMGET", self.keys(queue).paused, "since", "reason")
        since, reason = cast("list[bytes | None]", found)
        return Pause(int(since), (reason or b"").decode()) if since is not None else None

    async def purge(self, queue: str, reason: str, ends: Sequence[Kept]) -> int:
        """Cancel at most 500 jobs, each if it still waits; `ends` are their records. How many were cancelled.

        When the connection fails it is asked again, and those that the first try cancelled are not counted.
        """
        if not ends:
            return 0
        k = self.keys(queue)
        call = scripts.purge(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, side=k.side, keys=k.keys,
            ev=k.ev, now=self.now(), reason=reason, idempotency_ttl=IDEMPOTENCY_TTL_MS, events=self.options.events,
            batch=msgspec.msgpack.encode([(kept.job_id, kept.ttl) for kept in ends]),
            ends=[kept.record for kept in ends],
        )  # fmt: skip
        answers = cast("list[int]", await self.ask(call))
        gone = [kept for kept, answer in zip(ends, answers, strict=True) if answer]
        await self.move(queue, [kept for kept in gone if kept.ttl > 0])
        return len(gone)
