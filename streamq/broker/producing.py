"""What producers and operators ask of Redis: add, find, cancel, dead letters. One script a verb."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, cast

import msgspec
from redis.exceptions import RedisError

from streamq.broker import scripts, wire
from streamq.broker.archive import Archive, Kept
from streamq.broker.connect import Line, Reply
from streamq.broker.keys import queues
from streamq.broker.letters import record_of
from streamq.broker.retrying import persist
from streamq.broker.session import OPEN_TIMEOUT, Session
from streamq.broker.values import Found, NewJob, Placed, Standing, Where
from streamq.core.job import DeadLetter, Reason
from streamq.core.limits import IDEMPOTENCY_TTL_MS, MAX_BATCH, RING_SIZE, RING_TTL_MS
from streamq.core.options import AppOptions
from streamq.errors import NotDurable

_STANDINGS: Final[dict[str, Standing]] = {"n": "new", "d": "duplicate", "m": "mismatch"}
_PLACES: Final[dict[str, Where]] = {"d": "due", "t": "retry", "u": "parked"}
_WAIT_SLACK: Final = 5.0  # seconds a WAIT may be late before the connection counts as half-open


class Producing(Session):
    """The verbs of those who run nothing."""

    def __init__(self, url: str, options: AppOptions) -> None:
        super().__init__(url, options)
        self._requests = itertools.count(1)
        self.archive = Archive(options.result_url, options) if options.result_url else None

    async def open(
        self, timeout: float | None = OPEN_TIMEOUT, on_failure: Callable[[BaseException, float], None] | None = None
    ) -> None:
        """Connect to the queue's Redis, and to that of the results where they are kept apart."""
        await super().open(timeout, on_failure)
        if self.archive is not None:
            await self.archive.open(timeout, on_failure)

    async def close(self) -> None:
        """Close every connection."""
        if self.archive is not None:
            await self.archive.close()
        await super().close()

    # ---- producers -----------------------------------------------------------------------------------

    async def add(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        durability: str | None = None,
        timeout: float | None = None,
    ) -> list[Placed]:
        """Add at most 500 jobs in one round trip, each once, however often the network makes us ask.

        `timeout` in seconds. Raises `QueueFull` and `BrokerUnavailable` (a caller may then ask again with the same
        job ids), `NotDurable` (written, but not as durably as asked).
        """
        if len(jobs) > MAX_BATCH:
            raise ValueError(f"at most {MAX_BATCH} jobs a call, not {len(jobs)}")
        if not jobs:
            return []
        wanted = self.options.durability if durability is None else durability
        # Their own ring: while their connection hangs, those of the other one could pass it by more than its size.
        call = self._enqueue(queue, jobs, self.client_id if wanted == "memory" else f"{self.client_id}d")
        limit = self.options.timeout if timeout is None else timeout
        purpose = "commands" if wanted == "memory" else "durable"

        async def once() -> tuple[list[Reply], Line, int]:
            await self.announce(queue)
            sent, line = time.monotonic(), self.line(purpose, call.keys[0])
            reply = cast("list[Reply]", await self.script(call, line))
            self.synced(cast(int, reply[0]), sent)
            return reply, line, line.connected

        reply, line, connected = await self.translated(persist(once, limit))
        if wanted != "memory":
            await self._make_durable(line, wanted, jobs[0].job_id)
            if line.connected != connected:
                # WAIT knows only what its own connection wrote, and this one was made after the write.
                await self.translated(persist(once, limit))
                await self._make_durable(line, wanted, jobs[0].job_id)
        originals = iter(cast("list[bytes]", reply[2]))
        letters = cast(bytes, reply[1]).decode()
        return [
            Placed(job.job_id if letter == "n" else next(originals).decode(), _STANDINGS[letter])
            for job, letter in zip(jobs, letters, strict=True)
        ]

    def _enqueue(self, queue: str, jobs: Sequence[NewJob], client: str) -> scripts.ScriptCall:
        k, request = self.keys(queue), next(self._requests)
        if not any(job.key or job.own_id or job.due or job.delay for job in jobs):
            flat = [part for job in jobs for part in (job.job_id, job.priority, job.body)]
            ring = k.ring(client, request % RING_SIZE + 1)
            return scripts.push(
                streams=k.streams, jobs=k.jobs, ring=ring, now=self.now(), request=request, ring_ttl=RING_TTL_MS,
                jobs_flat=flat,
            )  # fmt: skip
        entries = [(j.job_id, j.priority, j.due, j.delay, j.own_id, j.key, j.fingerprint, j.retry_failed) for j in jobs]
        return scripts.enqueue(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, side=k.side, keys=k.keys,
            ring=k.ring(client), dead=k.dead, dead_body=k.dead_body, now=self.now(), bell=k.bell,
            request=request, ring_size=RING_SIZE, ring_ttl=RING_TTL_MS,
            batch=msgspec.msgpack.encode(entries), bodies=[j.body for j in jobs],
        )  # fmt: skip

    async def _make_durable(self, line: Line, wanted: str, job_id: str) -> None:
        kind, _, number = wanted.partition(":")
        wait = self.options.durability_timeout
        ms = round(wait * 1000)
        try:
            if kind == "replicas":
                reached = cast(int, await line.call("WAIT", int(number), ms, timeout=wait + _WAIT_SLACK))
                met, what = reached >= int(number), f"{reached} of {number} replicas have it"
            else:
                local, _ = cast("list[int]", await line.call("WAITAOF", 1, 0, ms, timeout=wait + _WAIT_SLACK))
                met, what = local >= 1, "the server has not written it to disk"
        except RedisError as error:
            said = str(error).rstrip(".")
            what = f"the server would not say: {said}. WAITAOF needs Redis 7.2 or newer, and appendonly yes"
            raise NotDurable(
                f"job {job_id} is enqueued, but durability={wanted!r} is not met: {what}", job_id
            ) from error
        if not met:
            message = f"job {job_id} is enqueued, but durability={wanted!r} is not met within {wait:g} s: {what}"
            raise NotDurable(message, job_id)

    # ---- looking, cancelling -------------------------------------------------------------------------------

    async def find(self, queue: str, job_id: str) -> Found:
        """All that is known of one job."""
        k = self.keys(queue)
        call = scripts.find(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, side=k.side, id=job_id
        )
        reply = cast("list[Reply]", await self.ask(call))
        place, record, body, due, consumer, idle, count, progress, reason, forgiven = cast("list[bytes | None]", reply)
        where = (place or b"").decode()
        running = consumer not in (b"", b"nobody")
        if record is None and not where:
            (record,) = await self.archived(queue, [job_id])
        ended = wire.decode_record(record) if record else None
        if ended is None and not where and (letter := await self.dead_one(queue, job_id)):
            ended = record_of(letter, self.options.max_payload)  # it outlives the record
        known = _PLACES.get(where[:1]) or (("running" if running else "stream") if where else "gone")
        return Found(
            queue,
            job_id,
            known,
            ended,
            body,
            int(where[1:2] if known in _PLACES.values() else where[:1] or 0),
            cast(int, due),
            (consumer or b"").decode(),
            cast(int, count),
            cast(int, idle),
            wire.decode_progress(progress) if progress else None,
            reason.decode() if reason is not None else None,
            int(forgiven or 0),
        )

    async def archived(self, queue: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """The records of these jobs in the result store, if results are kept apart."""
        if self.archive is None or not job_ids:
            return [None] * len(job_ids)
        return await self.archive.read(queue, job_ids)

    async def move(self, queue: str, records: Sequence[Kept]) -> None:
        """Copy these records to the result store, if there is one, and remove them beside the queue."""
        if self.archive is None or not records:
            return
        await self.archive.keep(queue, records)
        prefix = self.keys(queue).records
        await self.command("DEL", *[prefix + kept.job_id for kept in records])

    async def queues(self) -> list[str]:
        """Every queue of the namespace that was ever used, sorted."""
        reply = cast("list[bytes]", await self.command("HGETALL", queues(self.options.namespace)))
        return sorted(name.decode() for name in reply[::2])

    async def cancel(
        self, queue: str, job_id: str, reason: str, record: bytes, ttl: int
    ) -> Literal["cancelled", "cancelling", "finished", "missing"]:
        """Cancel one job; `record` is kept for `ttl` ms if it was still waiting."""
        k = self.keys(queue)
        call = scripts.cancel(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, side=k.side, keys=k.keys,
            ev=k.ev, now=self.now(), bell=k.bell, id=job_id, reason=reason, record=record, ttl=ttl,
            idempotency_ttl=IDEMPOTENCY_TTL_MS, events=self.options.events,
        )  # fmt: skip
        answer = cast(bytes, await self.ask(call)).decode()
        if answer == "cancelled" and ttl > 0:
            await self.move(queue, [Kept(job_id, ttl, record)])
        return cast('Literal["cancelled", "cancelling", "finished", "missing"]', answer)

    async def hasten(self, queue: str, job_id: str) -> bool:
        """Make a job that waits for its time due now; False if it does not wait for that."""
        k = self.keys(queue)
        call = scripts.hasten(due=k.due, ev=k.ev, now=self.now(), bell=k.bell, id=job_id, events=self.options.events)
        return bool(await self.ask(call))

    async def set_progress(self, queue: str, job_id: str, progress: bytes) -> None:
        """Note how far a running job is."""
        k = self.keys(queue)
        await self.ask(scripts.progress(jobs=k.jobs, side=k.side, id=job_id, progress=progress))

    # ---- schedules ------------------------------------------------------------------------------------------

    async def pause_schedule(self, queue: str, name: str) -> int:
        """Fire no occurrence of a schedule until it is resumed; since when that holds, epoch ms."""
        call = scripts.pause_schedule(cron_paused=self.keys(queue).cron_paused, now=self.now(), name=name)
        await self.announce(queue)
        return cast(int, await self.ask(call))

    async def resume_schedule(self, queue: str, name: str) -> bool:
        """Fire its occurrences from now on; False if it was not paused. What fell due meanwhile is not made up for."""
        call = scripts.resume_schedule(cron_paused=self.keys(queue).cron_paused, now=self.now(), name=name)
        return bool(await self.ask(call))

    async def schedules(self, queue: str, names: Sequence[str]) -> list[tuple[int, int]]:
        """Of each schedule its last occurrence (or when it was first seen) and since when it is paused; 0 is never."""
        k = self.keys(queue)
        if not names:
            return []
        last = cast("list[bytes | None]", await self.command("HMGET", k.cron, *names))
        paused = cast(
            "list[bytes | None]", await self.command("HMGET", k.cron_paused, *[f"p:{name}" for name in names])
        )
        return [(int(each or 0), int(since or 0)) for each, since in zip(last, paused, strict=True)]

    # ---- dead letters ---------------------------------------------------------------------------------------

    async def dead(self, queue: str, *, offset: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Dead letters, newest first."""
        k = self.keys(queue)
        ids = cast("list[bytes]", await self.command("ZRANGE", k.dead, offset, offset + limit - 1, "REV"))
        if not ids:
            return []
        letters = cast("list[bytes | None]", await self.command("HMGET", k.dead_body, *ids))
        return [self._named(wire.decode_dead(letter)) for letter in letters if letter is not None]

    async def dead_one(self, queue: str, job_id: str) -> DeadLetter | None:
        """One dead letter."""
        letter = cast("bytes | None", await self.command("HGET", self.keys(queue).dead_body, job_id))
        return None if letter is None else self._named(wire.decode_dead(letter))

    def _named(self, letter: DeadLetter) -> DeadLetter:
        """A crashed job was not decoded by the worker, for its own safety; whoever looks wants to know its task."""
        if letter.reason is not Reason.CRASHED:
            return letter
        try:
            job = wire.decode_job(letter.body, self.options.max_payload)
        except wire.Unreadable:
            return letter
        return msgspec.structs.replace(letter, task=job.task)

    async def revive(self, queue: str, jobs: Sequence[NewJob]) -> int:
        """Put dead letters back onto their queue; how many were still there."""
        k = self.keys(queue)
        call = scripts.revive(
            streams=k.streams, records=k.records, jobs=k.jobs, due=k.due, body=k.body, dead=k.dead,
            dead_body=k.dead_body, ev=k.ev, now=self.now(), bell=k.bell, events=self.options.events,
            batch=msgspec.msgpack.encode([(j.job_id, j.priority) for j in jobs]), bodies=[j.body for j in jobs],
        )  # fmt: skip
        return cast(int, await self.ask(call)) if jobs else 0

    async def discard(self, queue: str, job_ids: Sequence[str]) -> int:
        """Forget dead letters; how many were there."""
        k = self.keys(queue)
        gone = 0
        for first in range(0, len(job_ids), MAX_BATCH):
            ids = job_ids[first : first + MAX_BATCH]
            gone += cast(int, await self.ask(scripts.discard(dead=k.dead, dead_body=k.dead_body, ids=ids)))
        return gone
