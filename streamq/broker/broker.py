"""The verbs: `Broker` is all that streamq asks of Redis; here is what workers ask. One round trip a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, cast

from redis.exceptions import RedisError

from streamq.broker import scripts
from streamq.broker.archive import Kept, finished
from streamq.broker.connect import Reply, is_foreign, is_full, is_transient
from streamq.broker.governing import Governing
from streamq.broker.renewer import Renewer
from streamq.broker.settling import fingerprint, idempotency, pack
from streamq.broker.values import Found, NewJob, Placed, Turn
from streamq.core.job import Delivery
from streamq.core.limits import IDEMPOTENCY_TTL_MS, RING_TTL_MS
from streamq.core.options import PRIORITIES, AppOptions
from streamq.core.outcome import Settlement

__all__ = ["Broker", "Found", "NewJob", "Placed", "Turn", "fingerprint", "idempotency"]

_SETTLED: Final = {"o": "ok", "d": "dup", "f": "fenced", "g": "gone"}
_NOTHING: Final[list[scripts.Arg]] = [b""] * len(PRIORITIES)  # is pending at any priority
_BLOCK_SLACK: Final = 5.0  # seconds a blocking read may be late before the connection counts as half-open
_PROMOTE_LIMIT: Final = 200  # some 3 ms of the server; 100,000 at once would stop it for a second


class Broker(Governing):
    """Everything streamq asks of Redis."""

    def __init__(self, url: str, options: AppOptions) -> None:
        super().__init__(url, options)
        self._cursors: dict[tuple[str, str], list[scripts.Arg]] = {}

    # ---- workers ----------------------------------------------------------------------------------------------

    async def prepare(self, queue: str) -> None:
        """Make the streams and groups of a queue; it is harmless to do it again.

        Raises `BrokerError` for what will not pass: this user may not do that.
        """
        self._announced.discard(queue)  # after FLUSHALL it is no longer in the list
        try:
            await self.announce(queue)
            await self.script(scripts.prepare(streams=self.keys(queue).streams))
        except RedisError as error:
            if is_transient(error) or is_full(error) or is_foreign(error):
                raise
            raise self.translate(error) from error

    async def turn(
        self,
        queue: str,
        consumer: str,
        settlements: Sequence[tuple[Delivery, Settlement]],
        want: int,
        *,
        request: int,
        flight: int = 0,
        heard: Sequence[str] = (),
    ) -> Turn:
        """Settle and fetch in one round trip, tried once. `heard` are the ids of jobs that `block` brought since.

        When the connection fails, ask again with the same `request` and the same settlements: what was carried
        out is answered "dup". Turns that overlap need a `flight` each, 0 or 1, and count their requests apart.
        """
        k = self.keys(queue)
        batch, blobs = pack(settlements)
        call = scripts.turn(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, side=k.side, keys=k.keys,
            dead=k.dead, dead_body=k.dead_body, ring=k.ring(consumer, flight), paused=k.paused, ev=k.ev,
            now=self.now(), bell=k.bell, consumer=consumer, request=request, want=want,
            lease=round(self.options.lease * 1000), idempotency_ttl=IDEMPOTENCY_TTL_MS, ring_ttl=RING_TTL_MS,
            events=self.options.events, heard=" ".join(heard), batch=batch, blobs=blobs,
        )  # fmt: skip
        sent = time.monotonic()
        reply = cast("list[Reply]", await self.script(call, self.line(f"turn {queue}", k.jobs)))
        now = self.synced(cast(int, reply[0]), sent)
        taken = cast("list[Reply]", reply[2])
        deliveries: list[Delivery] = []
        for priority, entries in zip(taken[::2], taken[1::2], strict=True):
            for entry, fields in cast("list[tuple[bytes, list[bytes]]]", entries):
                deliveries.append(_delivery(queue, cast(int, priority), entry, fields))
        replies = [_SETTLED[letter] for letter in cast(bytes, reply[1]).decode()]
        if self.archive is not None:
            await self.move(queue, finished(settlements, replies))
        return Turn(now, replies, deliveries, reply[3] == 1)

    async def block(self, purpose: str, queue: str, consumer: str, block_ms: int) -> list[Delivery]:
        """Wait on every priority of a queue for a job, on the line of that purpose; at most one from each.

        Raises ResponseError (NOGROUP) after the server was flushed: `prepare` again.
        """
        k = self.keys(queue)
        names = [k.stream(priority) for priority in reversed(PRIORITIES)]
        line = self.line(purpose, k.jobs)
        try:
            reply = await line.call(
                "XREADGROUP", "GROUP", "w", consumer, "COUNT", 1, "BLOCK", block_ms,
                "STREAMS", *names, *[">"] * len(names), timeout=block_ms / 1000 + _BLOCK_SLACK,
            )  # fmt: skip
        except asyncio.CancelledError:
            line.hang_up()  # the server would go on waiting, and hand a job to nobody
            raise
        deliveries: list[Delivery] = []
        for name, entries in cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", reply or []):
            priority = int(name.rpartition(b":")[2])
            deliveries += [_delivery(queue, priority, entry, fields) for entry, fields in entries]
        return deliveries

    async def reclaim(
        self,
        queue: str,
        consumer: str,
        *,
        lease_ms: int,
        want: int,
        suspects: int,
        quiet: bool = False,
        everywhere: bool = True,
    ) -> tuple[list[Delivery], bool]:
        """The sweep: take over at most `want` entries whose lease ran out, and at most `suspects` suspects.

        `quiet`: only those that were given back. Not `everywhere`: only where this consumer's last sweep left
        something pending. Returns what was taken, and whether anything is pending where it looked.
        """
        k = self.keys(queue)
        call = scripts.reclaim(
            streams=k.streams, side=k.side, paused=k.paused, ev=k.ev, now=self.now(), consumer=consumer, lease=lease_ms,
            want=want, suspects=suspects, quiet=int(quiet), everywhere=int(everywhere), events=self.options.events,
            cursors=self._cursors.get((queue, consumer), _NOTHING),
        )  # fmt: skip
        taken, following = cast("tuple[list[Reply], list[bytes]]", await self.script(call))
        self._cursors[queue, consumer] = list(following)
        deliveries: list[Delivery] = []
        for found in taken:
            priority, entry, fields, count, forgiven = cast("tuple[int, bytes, list[bytes], int, int]", found)
            deliveries.append(_delivery(queue, priority, entry, fields, count, forgiven))
        return deliveries, any(following)

    async def promote(self, queue: str) -> tuple[int, int | None]:
        """Move at most 200 jobs whose time has come; how many, and ms until the next (None: nothing waits)."""
        k = self.keys(queue)
        call = scripts.promote(
            streams=k.streams, jobs=k.jobs, due=k.due, body=k.body, ev=k.ev, now=self.now(), limit=_PROMOTE_LIMIT,
            events=self.options.events,
        )  # fmt: skip
        moved, wait = cast("tuple[int, int]", await self.script(call))
        return moved, None if wait < 0 else wait

    async def fire(self, queue: str, name: str, occurrence: int, job: NewJob | None) -> bool:
        """Enqueue one occurrence (epoch ms) of a schedule if nobody did and it is not paused; None skips it."""
        k = self.keys(queue)
        call = scripts.fire(
            streams=k.streams, jobs=k.jobs, due=k.due, body=k.body, cron=k.cron, cron_paused=k.cron_paused,
            now=self.now(), bell=k.bell, name=name, occurrence=occurrence, id=job.job_id if job else "",
            priority=job.priority if job else 0, job=job.body if job else b"",
        )  # fmt: skip
        await self.announce(queue)
        return bool(await self.script(call))

    async def last_fired(self, queue: str, names: Sequence[str]) -> dict[str, int]:
        """After which epoch ms each schedule goes on: its last occurrence, the end of its pause; now if it is new."""
        k = self.keys(queue)
        call = scripts.baseline(cron=k.cron, cron_paused=k.cron_paused, now=self.now(), names=names)
        return dict(zip(names, cast("list[int]", await self.script(call)), strict=True)) if names else {}

    async def store(self, queue: str, job_id: str, record: bytes, ttl: int) -> None:
        """Write a record outside a settlement: what became of a job that was acknowledged early."""
        if ttl > 0:
            await self.command("SET", self.keys(queue).records + job_id, record, "PX", ttl)
            await self.move(queue, [Kept(job_id, ttl, record)])

    async def leave(self, queue: str, consumer: str, *, hand_back: bool = True) -> int:
        """Forget the worker; how many entries it still held.

        `hand_back` gives these to others at once. It is for a worker that runs nothing any more: they were
        handed out to a read that it gave up.
        """
        self._cursors.pop((queue, consumer), None)
        k = self.keys(queue)
        call = scripts.leave(
            streams=k.streams, side=k.side, workers=k.workers, worker_info=k.worker_info,
            ring=k.ring(consumer), ring2=k.ring(consumer, 1), ev=k.ev, now=self.now(), consumer=consumer,
            lease=round(self.options.lease * 1000), bell=k.bell, hand_back=int(hand_back), events=self.options.events,
        )  # fmt: skip
        return cast(int, await self.script(call))

    async def tidy(self, queue: str) -> int:
        """Remove dead workers whose entries were all taken over; how many."""
        k = self.keys(queue)
        call = scripts.tidy(streams=k.streams, workers=k.workers, worker_info=k.worker_info, now=self.now())
        return cast(int, await self.script(call))

    def bell(self, queue: str) -> str:
        """The channel that wakes the workers of a queue: `due <ms>`, `cancel <id>`, `released`."""
        return self.keys(queue).bell

    def renewer(self) -> Renewer:
        """What the heartbeat thread calls; it has a connection of its own."""
        patience = min(5.0, self.options.lease / 3)  # a half-open connection has to be noticed while the lease is good
        return Renewer(self.connections, patience, self.keys, lambda: self.now())  # it may be set later


def _delivery(
    queue: str, priority: int, entry: bytes, fields: Sequence[bytes], count: int = 1, forgiven: int = 0
) -> Delivery:
    if len(fields) == 4 and fields[0] == b"i" and fields[2] == b"j":
        try:
            return Delivery(queue, priority, entry, fields[1].decode(), fields[3], count, forgiven)
        except UnicodeDecodeError:
            pass  # not written by streamq: it becomes a dead letter under a name of its own
    body = b" ".join(fields)
    return Delivery(queue, priority, entry, f"unreadable-{priority}-{entry.decode()}", body, count, forgiven)
