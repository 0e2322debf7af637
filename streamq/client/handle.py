"""A job as its caller holds it: look at it, wait for it, cancel it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from msgspec import Raw

from streamq.broker import wire
from streamq.broker.broker import Broker, Found
from streamq.client.info import Cancellation, JobInfo, describe, read_body, state_of
from streamq.client.link import Link, not_found
from streamq.core.clock import Duration, seconds
from streamq.core.job import NO_OPTIONS, Progress, Record, State
from streamq.core.outcome import NIL, RECORD_VERSION
from streamq.errors import JobCancelled, JobExpired, JobFailed, MaxRetriesExceeded, ResultExpired

R = TypeVar("R")


class Job(Generic[R]):
    """One job, in this process or any other that knows its id.

    `deduplicated` is True when an earlier job with the same id or idempotency key was found instead of a
    new one being made; it is that job then.

        job = await add.enqueue(2, 3)
        await job.result(timeout="5s")        # 5
    """

    __slots__ = ("_decode", "_known", "_link", "_queue", "deduplicated", "id", "task")

    def __init__(
        self,
        link: Link,
        job_id: str,
        queue: str,
        task: str = "",
        *,
        decode: Callable[[Raw], object] = wire.decode_value,
        deduplicated: bool = False,
        known: bool = True,
    ) -> None:
        self._link = link
        self.id = job_id
        self._queue = queue
        self.task = task
        self.deduplicated = deduplicated
        self._decode = decode
        self._known = known

    @property
    def queue(self) -> str:
        """Its queue; empty as long as that is not known (`app.job(id)`)."""
        return self._queue

    def __repr__(self) -> str:
        return f"<Job {self.id}{' ' if self.task else ''}{self.task} in {self._queue or '?'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id  # pyright: ignore

    def __hash__(self) -> int:
        return hash(self.id)

    async def status(self) -> State:
        """Where it is in its life. Raises `JobNotFound` for an id that is unknown or no longer kept."""
        return state_of(await self._find())

    async def info(self) -> JobInfo:
        """All that is known of it: state, attempts and their errors, times, worker. Raises `JobNotFound`."""
        found = await self._find()
        now = self._link.broker.clock.now_ms()
        since = await self._running_since(found, now) if found.where == "running" else 0
        return describe(found, self._link.options.max_payload, since, now)

    async def _running_since(self, found: Found, now: int) -> int:
        for worker in await (await self._link.inspector()).workers(found.queue):
            for job_id, _, since in worker.running:
                if job_id == self.id:
                    return since
        return now - found.idle  # too young for its worker's last heartbeat: idle since it was handed out

    async def progress(self) -> Progress | None:
        """How far the running task says it is; None if it said nothing. Raises `JobNotFound`."""
        return (await self._find()).progress

    async def result(self, timeout: Duration | None = None, *, raises: bool = True) -> R:
        """Wait for the end and give what the task returned.

        `timeout` is a duration; None waits for as long as it takes. Raises `JobFailed` (`MaxRetriesExceeded`
        after the last retry) with the remote traceback, `JobCancelled`, `JobExpired`, and with `raises=False`
        gives these instead. Raises `ResultTimeout`, `JobNotFound`, `ResultExpired` in any case.

            total = await job.result(timeout="30s")
        """
        record = await self._record(self._link, timeout)
        error = self._error(record)
        if error is None:
            return cast(R, self._decode(record.result))
        if raises:
            raise error
        return cast(R, error)

    def result_sync(self, timeout: Duration | None = None) -> R:
        """`result` for threads and plain scripts. It blocks: never call it on an event loop that must go on."""

        async def wait(link: Link) -> Record:
            return await self._record(link, timeout)

        record = self._link.run_sync(wait)
        if error := self._error(record):
            raise error
        return cast(R, self._decode(record.result))

    def get(self, timeout: Duration | None = None) -> R:
        """Celery's name for `result_sync`: it blocks."""
        return self.result_sync(timeout)

    async def ready(self) -> bool:
        """Whether it has ended, in whatever way. Raises `JobNotFound`."""
        return (await self.status()).final

    async def cancel(self, reason: str = "") -> Cancellation:
        """Cancel it: a waiting job is gone at once, a running one is told, a finished one stays as it is.

        The task sees a cancellation at its next `await`; a plain `def` cannot be interrupted. The answer is
        "cancelled", "cancelling" or "finished". Raises `JobNotFound`.

            await job.cancel("the order was withdrawn")
        """
        found = await self._find()
        if found.record is not None:
            return Cancellation.FINISHED
        broker = self._link.broker
        record, ttl = _cancelled(found, self._link, broker, reason)
        answer = await broker.cancel(found.queue, self.id, reason, wire.encode_record(record), ttl)
        if answer == "missing":
            raise not_found(self.id, found.queue)
        return Cancellation(answer)

    # ---- below: how ----------------------------------------------------------------------------------

    async def _located(self, link: Link) -> str:
        if not self._queue:
            self._queue = await link.locate(self.id)
        return self._queue

    async def _find(self) -> Found:
        broker = await self._link.open()
        found = await broker.find(await self._located(self._link), self.id)
        if found.where == "gone" and found.record is None:
            raise not_found(self.id, f"queue {self._queue!r}")
        return found

    async def _record(self, link: Link, timeout: Duration | None) -> Record:
        limit = None if timeout is None else seconds(timeout, name="timeout")
        results = await link.results()
        return await results.wait(await self._located(link), self.id, limit, known=self._known)

    def _error(self, record: Record) -> Exception | None:
        name = f"{record.task or self.task} {self.id}"
        match record.state:
            case State.SUCCESS:
                return None
            case State.CANCELLED:
                why = f": {record.reason}" if record.reason else ""
                return JobCancelled(f"{name} was cancelled{why}", self.id, reason=record.reason)
            case State.EXPIRED:
                return JobExpired(f"{name} expired before it could start", self.id)
            case State.FAILURE:
                return self._failed(record, name)
            case state:
                return ResultExpired(f"{name} is {state}, and its worker is gone", self.id)

    def _failed(self, record: Record, name: str) -> JobFailed:
        failure = record.error
        kind = MaxRetriesExceeded if record.reason == "exhausted" else JobFailed
        if failure is None:
            return kind(f"{name} failed: {record.reason}", self.id)
        after = f" after {record.retries} retries" if kind is MaxRetriesExceeded else ""
        message = f"{name} failed{after}: {failure.error}: {failure.message}"
        if failure.traceback:
            message += f"\n\nOn the worker {failure.worker}:\n{failure.traceback.rstrip()}"
        return kind(message, self.id, error=failure.error, traceback=failure.traceback)


def _cancelled(found: Found, link: Link, broker: Broker, reason: str) -> tuple[Record, int]:
    job, options = read_body(found, link.options.max_payload)
    now = broker.clock.now_ms()
    record = Record(
        version=RECORD_VERSION,
        state=State.CANCELLED,
        task=job.task if job else "",
        result=NIL,
        error=None,
        reason=reason,
        enqueued_at=job.enqueued_at if job else 0,
        started_at=job.started_at if job else 0,
        finished_at=now,
        worker="",
        attempts=job.retries if job else 0,
        retries=job.retries if job else 0,
        failures=job.failures if job else [],
        priority=found.priority,
        options=job.options if job else NO_OPTIONS,
    )
    ttl = link.options.result_ttl if options.result_ttl is None else options.result_ttl
    return record, ttl
