"""Waiting for results: one subscription, many waiters. Pub/sub only wakes; what it loses is read again."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from redis.exceptions import RedisError

from streamq.broker import scripts, wire
from streamq.broker.broker import Broker
from streamq.broker.connect import Reply
from streamq.broker.keys import inbox
from streamq.broker.retrying import backoff
from streamq.core.job import Record
from streamq.errors import BrokerError, JobNotFound, ResultExpired, ResultTimeout

_REREAD: Final = 2.0  # seconds after which a waiter reads again: a lost message costs no more than this
_BATCH: Final = 500
_Waiter = asyncio.Future[Record | None]


class Results:
    """The waiters of one application.

    A waiter registers its job and its client's inbox in one script, which answers at once if the record is
    there; the script that finishes the job publishes to the inbox.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._inbox = inbox(broker.options.namespace, broker.client_id)
        self._waiting: dict[str, dict[str, set[_Waiter]]] = {}  # job id -> queue -> who waits
        self._unregistered: dict[str, list[str]] = {}
        self._services: list[asyncio.Task[None]] = []
        self._registering: dict[str, asyncio.Task[None]] = {}  # by queue: the server of another may be away
        self._ready: asyncio.Future[None] | None = None

    async def wait(self, queue: str, job_id: str, timeout: float | None, *, known: bool) -> Record:
        """The record of a job, once it has finished. `timeout` in seconds; None waits as long as it takes.

        Raises `ResultTimeout`, `JobNotFound`; `ResultExpired` if the job is `known` to have existed, `BrokerError`.
        """
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        queues = self._waiting.setdefault(job_id, {})
        waiters = queues.setdefault(queue, set())
        waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await self._serve()
                self._register(queue, job_id)
                record = await waiter
        except TimeoutError:
            message = f"job {job_id} did not finish within {timeout:g} s; it is still there, ask again"
            raise ResultTimeout(message, job_id) from None
        finally:
            waiters.discard(waiter)
            if not waiters and queues.get(queue) is waiters:
                del queues[queue]
            if not queues and self._waiting.get(job_id) is queues:
                del self._waiting[job_id]
        if record is not None:
            return record
        if known:
            raise ResultExpired(f"job {job_id} has finished, and its result is no longer kept", job_id)
        raise JobNotFound(f"no job {job_id} in queue {queue!r}: a wrong id, or its record has expired", job_id)

    async def close(self) -> None:
        """Stop listening; those who still wait are told."""
        services, self._services = self._services, []
        services += self._registering.values()
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
        self._ready = None
        for waiter in [each for queues in self._waiting.values() for waiters in queues.values() for each in waiters]:
            if not waiter.done():
                waiter.set_exception(BrokerError("the application was closed while this result was awaited"))

    # ---- registering ----------------------------------------------------------------------------------------

    def _register(self, queue: str, job_id: str) -> None:
        self._unregistered.setdefault(queue, []).append(job_id)
        if queue not in self._registering:
            registering = self._register_all(queue)
            self._registering[queue] = asyncio.create_task(registering, name=f"streamq results: register {queue}")

    async def _register_all(self, queue: str) -> None:
        try:
            while ids := list(dict.fromkeys(self._unregistered.pop(queue, ()))):
                for first in range(0, len(ids), _BATCH):
                    await self._look(queue, ids[first : first + _BATCH])
        finally:
            del self._registering[queue]

    async def _look(self, queue: str, ids: list[str]) -> None:
        k = self._broker.keys(queue)
        call = scripts.watch(records=k.records, jobs=k.jobs, side=k.side, inbox=self._inbox, ids=ids)
        try:
            answers = cast("list[Reply]", await self._broker.ask(call))
            missing = [job_id for job_id, answer in zip(ids, answers, strict=True) if answer == 0]
            archived = dict(zip(missing, await self._broker.archived(queue, missing), strict=True))
        except BrokerError as error:
            for job_id in ids:
                self._fail(queue, job_id, error)
            return
        for job_id, answer in zip(ids, answers, strict=True):
            record = archived.get(job_id) if answer == 0 else answer
            if isinstance(record, bytes):
                self._tell(queue, job_id, record)
            elif answer == 0:
                self._resolve(queue, job_id, None)

    def _tell(self, queue: str, job_id: str, data: bytes) -> None:
        try:
            record = wire.decode_record(data)
        except wire.Unreadable as error:
            self._fail(queue, job_id, BrokerError(f"the record of job {job_id} cannot be read: {error}"))
            return
        if record.state.final:  # not yet, if it was acknowledged early
            self._resolve(queue, job_id, record)

    def _resolve(self, queue: str, job_id: str, record: Record | None) -> None:
        for waiter in self._waiting.get(job_id, {}).get(queue, ()):
            if not waiter.done():
                waiter.set_result(record)

    def _fail(self, queue: str, job_id: str, error: BrokerError) -> None:
        for waiter in self._waiting.get(job_id, {}).get(queue, ()):
            if not waiter.done():
                waiter.set_exception(error)

    # ---- listening ------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._services = [
                asyncio.create_task(self._listen(self._ready), name="streamq results: listen"),
                asyncio.create_task(self._reread(), name="streamq results: reread"),
            ]
        await asyncio.shield(self._ready)

    async def _listen(self, ready: asyncio.Future[None]) -> None:
        waits, task = backoff(), asyncio.current_task()
        # redis-py loses a cancellation that arrives just when a reply does: ask whether there was one.
        while task is not None and not task.cancelling():
            try:
                async with self._broker.connections.subscribed(self._inbox) as pubsub:
                    while not task.cancelling():
                        message = cast("dict[str, object] | None", await pubsub.get_message(timeout=5.0))
                        waits = backoff()
                        if not ready.done():
                            ready.set_result(None)
                        if message is not None and message["type"] == "message":
                            self._read(cast(bytes, message["data"]))
            except (RedisError, OSError):
                # The rereading goes on meanwhile: a waiter is late, never left alone.
                await asyncio.sleep(next(waits))
            finally:
                if not ready.done():
                    ready.set_result(None)

    def _read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2])
            job_id = data[at + 2 : end].decode()
            size = int.from_bytes(data[end : end + 4])
            at = end + 4 + size
            queues = list(self._waiting.get(job_id, ()))
            if size and len(queues) == 1:
                self._tell(queues[0], job_id, data[end + 4 : at])
                continue
            for queue in queues:  # a large record, or an id that two queues know
                self._register(queue, job_id)

    async def _reread(self) -> None:
        while True:
            await asyncio.sleep(_REREAD)
            for job_id, queues in self._waiting.items():
                for queue in queues:
                    self._register(queue, job_id)
