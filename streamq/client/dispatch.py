"""The way of a call from a task to Redis: route, build, share a round trip, hand back a job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from streamq.broker.broker import Broker, NewJob, Placed
from streamq.client.call import Call, build_job
from streamq.client.handle import Job
from streamq.client.hooks import Event, Events, Middleware, send_chain
from streamq.client.link import Link
from streamq.client.partial import Signature
from streamq.client.routes import RouteTable
from streamq.client.signature import Parameters
from streamq.client.task import Task
from streamq.core.job import State
from streamq.core.limits import MAX_BATCH, WARN_PAYLOAD
from streamq.core.options import AppOptions, TaskOptions
from streamq.errors import ConfigurationError, IdempotencyMismatch, InvalidArguments

logger = logging.getLogger("streamq.enqueue")

_UNKNOWN_TASK: Final = TaskOptions()


def _anything(*args: Any, **kwargs: Any) -> Any:
    """The signature of a task whose code is elsewhere."""


@lru_cache(256)
def _unknown(task: str) -> Parameters:
    return Parameters(task, _anything)


class Dispatch:
    """Sends the calls of one application."""

    def __init__(
        self,
        link: Link,
        tasks: Mapping[str, Task[..., Any]],
        options: AppOptions,
        routing: RouteTable,
        events: Events,
        middleware: Sequence[Middleware],
    ) -> None:
        self._link = link
        self._tasks = tasks
        self._options = options
        self._routing = routing
        self._events = events
        self._chain = send_chain(middleware)
        self._warned: set[str] = set()

    async def send(self, call: Call) -> Job[Any]:
        """Enqueue one call; concurrent ones share round trips."""
        return await self._send(call, self._link)

    def send_sync(self, call: Call) -> Job[Any]:
        """The same through the background thread."""
        return self._link.run_sync(lambda link: self._send(call, link))

    async def _send(self, call: Call, link: Link) -> Job[Any]:
        if self._chain is None:
            return await self._send_now(call, link)
        job: Job[Any] = await self._chain(call, lambda: self._send_now(call, link))
        return job

    async def _send_now(self, call: Call, link: Link) -> Job[Any]:
        sender = await link.sender()
        queue, job = self.build(call, link)
        placed = await sender.send(queue, job, call.options.durability)
        return self._placed(call, queue, placed, job)

    async def send_many(
        self, signatures: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]], chunk: int
    ) -> list[Job[Any]]:
        """Enqueue calls chunk by chunk, in order."""
        if not 1 <= chunk <= MAX_BATCH:
            raise ConfigurationError(f"chunk={chunk!r} is not a number of jobs from 1 to {MAX_BATCH}.")
        if self._chain is not None:
            async with aclosing(_chunks(signatures, chunk)) as chunks:
                return [job async for calls in chunks for job in await asyncio.gather(*map(self.send, calls))]
        broker = await self._link.open()
        jobs: list[Job[Any]] = []
        flight: asyncio.Task[list[Job[Any]]] | None = None
        try:
            async with aclosing(_chunks(signatures, chunk)) as chunks:
                async for calls in chunks:
                    # The next chunk is read and encoded while this one is under way.
                    now = broker.now_ms()
                    built = [self._build(call, now) for call in calls]
                    if flight is not None:
                        jobs += await flight
                    flight = asyncio.create_task(self._fly(broker, calls, built))
                    await asyncio.sleep(0)
            return jobs if flight is None else [*jobs, *await flight]
        finally:
            if flight is not None:
                # What failed was reading or encoding the next one, or the caller was cancelled: this one is
                # on its way, and the caller hears of the failure when it has landed.
                await asyncio.wait([flight])
                if not flight.cancelled():
                    flight.exception()

    async def _fly(self, broker: Broker, calls: list[Call], built: list[tuple[str, NewJob]]) -> list[Job[Any]]:
        groups: dict[tuple[str, str | None], list[int]] = {}
        for index, (call, (queue, _)) in enumerate(zip(calls, built, strict=True)):
            groups.setdefault((queue, call.options.durability), []).append(index)
        answers: dict[int, Placed] = {}
        for (queue, durability), members in groups.items():
            batch = [built[index][1] for index in members]
            answers.update(zip(members, await broker.add(queue, batch, durability=durability), strict=True))
        return [
            self._placed(call, queue, answers[index], job)
            for index, (call, (queue, job)) in enumerate(zip(calls, built, strict=True))
        ]

    def build(self, call: Call, link: Link, job_id: str = "") -> tuple[str, NewJob]:
        """Queue and job that a call becomes."""
        return self._build(call, link.broker.now_ms(), job_id)

    def _build(self, call: Call, now: int, job_id: str = "") -> tuple[str, NewJob]:
        task = self._tasks.get(call.task)
        queue, priority = self.route(call.task, call)
        parameters = task.signature if task is not None else _unknown(call.task)
        options = task.options if task is not None else _UNKNOWN_TASK
        job = build_job(call, options, parameters, self._options, queue, priority, now, job_id)
        if len(job.body) > WARN_PAYLOAD and call.task not in self._warned:
            self._warned.add(call.task)
            logger.warning(
                "a job of %s takes %d bytes: it costs more to move than most cost to run; pass an id or a URL"
                " instead (said once for each task)",
                call.task,
                len(job.body),
            )
        return queue, job

    def route(self, name: str, call: Call | None) -> tuple[str, int]:
        """Queue and priority: what the call says, else the task, else the routes, else "default" and 0."""
        task = self._tasks.get(name)
        options = task.options if task is not None else _UNKNOWN_TASK
        queue, priority = options.queue, options.priority
        if not queue:
            queue, routed = self._routing(name)
            priority = routed if priority is None else priority
        if call is not None:
            queue = call.options.queue or queue
            priority = priority if call.options.priority is None else call.options.priority
        return queue, priority or 0

    def _placed(self, call: Call, queue: str, placed: Placed, job: NewJob) -> Job[Any]:
        if placed.status == "mismatch":
            raise IdempotencyMismatch(
                f"{call.task}: the idempotency key {call.options.idempotency_key!r} belongs to the job"
                f" {placed.job_id}, which has other arguments. One key is for one call: make it of the arguments.",
                placed.job_id,
            )
        if placed.status == "new" and self._events.wants("job.enqueued"):
            state = State.SCHEDULED if job.due or job.delay else State.QUEUED
            at = self._link.broker.clock.now_ms()
            self._events.emit(
                Event(name="job.enqueued", job_id=job.job_id, task=call.task, queue=queue, at=at, state=state)
            )
        task = self._tasks.get(call.task)
        duplicate = placed.status == "duplicate"
        if task is None:
            return Job(self._link, placed.job_id, queue, call.task, deduplicated=duplicate)
        decode = task.signature.result
        return Job(self._link, placed.job_id, queue, call.task, decode=decode, deduplicated=duplicate)


async def _chunks(
    signatures: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]], size: int
) -> AsyncGenerator[list[Call], None]:
    if isinstance(signatures, AsyncIterable):
        chunk: list[Call] = []
        async for signature in signatures:
            chunk.append(_call(signature))
            if len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        return
    given = iter(signatures)
    while calls := [_call(signature) for signature in islice(given, size)]:
        yield calls


def _call(signature: Signature[Any]) -> Call:
    if not isinstance(signature, Signature):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArguments(f"enqueue_many takes calls, not {signature!r}: write task.s(...) for each.")
    return signature.call()
