"""A job as its caller holds it: look at it, wait for it, cancel it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeVar, cast, overload

from msgspec import Raw

from streamq.broker import wire
from streamq.broker.broker import Found
from streamq.client.dead import DeadLetters
from streamq.client.explain import explain
from streamq.client.info import Cancellation, JobInfo, Restart, cancelled, describe, state_of
from streamq.client.link import Link, not_found
from streamq.client.standing import Explanation
from streamq.client.timeline import Timeline, timeline
from streamq.core.clock import Duration, seconds
from streamq.core.codec import unseal
from streamq.core.job import Progress, Record, State
from streamq.errors import JobCancelled, JobError, JobExpired, JobFailed, MaxRetriesExceeded, ResultExpired

R = TypeVar("R")
T = TypeVar("T")


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
        decode: Callable[[Raw], object] | None = None,
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
        return isinstance(other, Job) and other.id == self.id

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

    async def explain(self) -> Explanation:
        """Why it does not run, or how it stands, in a sentence or two, and what to do about it.

        An id that is unknown is explained too.

            print(await job.explain())
        """
        return await explain(self._link, self.id, self._queue)

    async def _running_since(self, found: Found, now: int) -> int:
        for worker in await (await self._link.inspector()).workers(found.queue):
            for job_id, _, since in worker.running:
                if job_id == self.id:
                    return since
        return now - found.idle  # too young for its worker's last heartbeat: idle since it was handed out

    async def timeline(self) -> Timeline:
        """All that happened to it, step by step, and why: which worker took it, lost it, retried it.

        It outlives the record, as long as the queue's history does (`events`). Raises `JobNotFound`.

            for step in (await job.timeline()).steps:
                print(step.at, step.what, step.worker, step.why)
        """
        return await timeline(self._link, self.id, self._queue)

    async def progress(self) -> Progress | None:
        """How far the running task says it is; None if it said nothing. Raises `JobNotFound`."""
        return (await self._find()).progress

    @overload
    async def result(self, timeout: Duration | None = None, *, raises: Literal[True] = True) -> R: ...

    @overload
    async def result(self, timeout: Duration | None = None, *, raises: bool) -> R | JobError: ...

    async def result(self, timeout: Duration | None = None, *, raises: bool = True) -> R | JobError:
        """Wait for the end and give what the task returned.

        `timeout` is a duration; None waits for as long as it takes. Raises `JobFailed` (`MaxRetriesExceeded`
        after the last retry) with the remote traceback, `JobCancelled`, `JobExpired`, and with `raises=False`
        gives these instead. Raises `ResultTimeout`, `JobNotFound`, `ResultExpired`, `Undecodable` in any case.

            total = await job.result(timeout="30s")
        """
        record = await self._record(self._link, timeout)
        error = self._error(record)
        if error is None:
            return cast(R, self._value(record))
        if raises:
            raise error
        return error

    def result_sync(self, timeout: Duration | None = None) -> R:
        """`result` for threads and plain scripts. It blocks: never call it on an event loop that must go on.

        So do the other methods that end in `_sync`.
        """
        return self._sync(lambda job: job.result(timeout))

    def status_sync(self) -> State:
        """`status` for threads and plain scripts."""
        return self._sync(lambda job: job.status())

    def info_sync(self) -> JobInfo:
        """`info` for threads and plain scripts."""
        return self._sync(lambda job: job.info())

    def progress_sync(self) -> Progress | None:
        """`progress` for threads and plain scripts."""
        return self._sync(lambda job: job.progress())

    def cancel_sync(self, reason: str = "") -> Cancellation:
        """`cancel` for threads and plain scripts."""
        return self._sync(lambda job: job.cancel(reason))

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
        record, ttl = cancelled(found.body, found.priority, self._link.options, reason, broker.clock.now_ms())
        answer = await broker.cancel(found.queue, self.id, reason, wire.encode_record(record), ttl)
        if answer == "missing":
            raise not_found(self.id, found.queue)
        return Cancellation(answer)

    async def retry_now(self) -> Restart:
        """Run it now: one that waits for its time or its retry becomes due, a dead letter is put back.

        The answer is "due" or "revived". Raises `JobError` for a job that waits for nothing but a worker, that is
        running, or that ended without becoming a dead letter; `JobNotFound`.

            await app.job(id).retry_now()
        """
        found = await self._find()
        if await self._link.broker.hasten(found.queue, self.id):
            return Restart.DUE
        if found.record is not None and await self._revive(found.queue):
            return Restart.REVIVED
        raise JobError(_no_retry(await self._find()), self.id)

    # ---- below: how ----------------------------------------------------------------------------------

    def _sync(self, work: Callable[[Job[R]], Awaitable[T]]) -> T:
        """Do it in the background thread, by a job on that thread's link."""
        return self._link.run_sync(lambda link: work(self._on(link)))

    def _on(self, link: Link) -> Job[R]:
        return Job(link, self.id, self._queue, self.task, decode=self._decode, known=self._known)

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

    async def _revive(self, queue: str) -> bool:
        letters = DeadLetters(self._link, queue)
        return await self._link.broker.dead_one(queue, self.id) is not None and await letters.retry(self.id) > 0

    async def _record(self, link: Link, timeout: Duration | None) -> Record:
        limit = None if timeout is None else seconds(timeout, name="timeout")
        results = await link.results()
        return await results.wait(await self._located(link), self.id, limit, known=self._known)

    def _value(self, record: Record) -> object:
        decode = self._decode or self._link.known.decoder(record.task)
        settings = self._link.options
        if settings.codec is None:
            return decode(record.result)
        return decode(unseal(settings.codec, record.result, settings.max_payload))

    def _error(self, record: Record) -> JobError | None:
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


def _no_retry(found: Found) -> str:
    """Why a job cannot be run again now."""
    match state_of(found):
        case State.STARTED:
            return f"{found.job_id} is running: there is nothing to retry yet."
        case State.FAILURE:
            return f"{found.job_id} has failed, and its dead letter was discarded: enqueue the job anew."
        case state if state.final:
            return f"{found.job_id} ended as {state}: only dead letters can be retried; enqueue the job anew."
        case _:
            return f"{found.job_id} waits for a worker already."
