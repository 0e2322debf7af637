"""Dead letters: jobs that ended in FAILURE, kept until somebody retries or discards them."""

from __future__ import annotations

import builtins
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from streamq.broker import wire
from streamq.broker.broker import Broker, NewJob
from streamq.client.link import Link, not_found
from streamq.core.clock import Duration, milliseconds
from streamq.core.job import DeadLetter, JobBody, Reason
from streamq.core.options import AppOptions
from streamq.core.signing import BadSignature
from streamq.errors import ConfigurationError, JobError, JobNotFound

logger = logging.getLogger("streamq.dead")

PAGE = 100  # dead letters a round trip: each carries its whole job


@dataclass(frozen=True, slots=True)
class _Filter:
    task: str | None
    error: str | None
    before: int | None  # epoch ms

    def wants(self, letter: DeadLetter) -> bool:
        return (
            (self.task is None or fnmatchcase(letter.task, self.task))
            and (self.error is None or self.error in letter.error)
            and (self.before is None or letter.at < self.before)
        )


class DeadLetters:
    """The dead letters of one queue.

    Filters: `task` is a name or a pattern ("images.*"), `error` a part of the error's text,
    `older_than` a duration.

        await app.dead_letters("emails").retry(error="ConnectError")
    """

    def __init__(self, link: Link, queue: str) -> None:
        self._link = link
        self.queue = queue

    async def list(
        self,
        task: str | None = None,
        error: str | None = None,
        older_than: Duration | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """At most `limit` of them, the newest first."""
        found: list[DeadLetter] = []
        broker = await self._link.open()
        if limit > 0:
            async for letter in self._all(broker, _filter(broker, task, error, older_than)):
                found.append(letter)
                if len(found) >= limit:
                    break
        return found

    async def count(self, task: str | None = None, error: str | None = None, older_than: Duration | None = None) -> int:
        """How many match. Without filters one number is read, else all of them."""
        broker = await self._link.open()
        if task is error is older_than is None:
            return (await (await self._link.inspector()).queue(self.queue)).dead
        return sum([1 async for _ in self._all(broker, _filter(broker, task, error, older_than))])

    async def show(self, job_id: str) -> DeadLetter:
        """One of them, with its attempts and errors. Raises `JobNotFound`."""
        broker = await self._link.open()
        letter = await broker.dead_one(self.queue, job_id)
        if letter is None:
            raise self._not_found(job_id)
        return letter

    async def retry(
        self,
        job_id: str | None = None,
        *,
        task: str | None = None,
        error: str | None = None,
        older_than: Duration | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Put one, or all that match, back onto the queue with their retries reset; how many were.

        An unreadable one cannot be retried, since only its first bytes are kept: asked for by id it raises
        `JobError`, among others it is left where it is and logged. `progress` is told the number of each page.
        Raises `JobNotFound`.
        """
        if job_id is not None:
            _alone(task, error, older_than)
            again = _again(await self.show(job_id), self.queue, self._link.options)
            return await self._link.broker.revive(self.queue, [again])
        return await self._apply(self._revive, task, error, older_than, progress)

    async def discard(
        self,
        job_id: str | None = None,
        *,
        task: str | None = None,
        error: str | None = None,
        older_than: Duration | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Forget one, or all that match; how many were there. `progress` is told the number of each page.

        Raises `JobNotFound`.
        """
        if job_id is not None:
            _alone(task, error, older_than)
            broker = await self._link.open()
            if not await broker.discard(self.queue, [job_id]):
                raise self._not_found(job_id)
            return 1
        return await self._apply(self._discard, task, error, older_than, progress)

    async def _revive(self, broker: Broker, letters: builtins.list[DeadLetter]) -> int:
        jobs: list[NewJob] = []
        for letter in letters:
            try:
                jobs.append(_again(letter, self.queue, self._link.options))
            except JobError as error:
                logger.warning("%s", error)
        return await broker.revive(self.queue, jobs) if jobs else 0

    async def _discard(self, broker: Broker, letters: builtins.list[DeadLetter]) -> int:
        return await broker.discard(self.queue, [letter.job_id for letter in letters])

    def _not_found(self, job_id: str) -> JobNotFound:
        return not_found(job_id, f"the dead letters of {self.queue!r}")

    async def _apply(
        self,
        action: Callable[[Broker, builtins.list[DeadLetter]], Awaitable[int]],
        task: str | None,
        error: str | None,
        older_than: Duration | None,
        progress: Callable[[int], None] | None,
    ) -> int:
        broker = await self._link.open()
        matching = _filter(broker, task, error, older_than)
        total = offset = 0
        horizon: int | None = None  # what dies while this runs is not of the user's choice
        tried: set[str] = set()
        while page := await broker.dead(self.queue, offset=offset, limit=PAGE):
            horizon = page[0].at if horizon is None else horizon
            chosen = [each for each in page if each.at <= horizon and each.job_id not in tried and matching.wants(each)]
            done = await action(broker, chosen) if chosen else 0
            total += done
            if progress is not None:
                progress(done)
            if done == len(chosen):
                offset += len(page) - done
            else:  # some stay, or somebody else took them and the others moved up: only another look tells
                tried.update(each.job_id for each in chosen)
        return total

    async def _all(self, broker: Broker, matching: _Filter) -> AsyncIterator[DeadLetter]:
        offset = 0
        seen: set[str] = set()  # a new one at the head moves the others into the next page
        while page := await broker.dead(self.queue, offset=offset, limit=PAGE):
            offset += len(page)
            for letter in page:
                if letter.job_id not in seen and matching.wants(letter):
                    yield letter
            seen = {letter.job_id for letter in page}


def _filter(broker: Broker, task: str | None, error: str | None, older_than: Duration | None) -> _Filter:
    age = None if older_than is None else milliseconds(older_than, name="older_than")
    return _Filter(task, error, None if age is None else broker.clock.now_ms() - age)


def _again(letter: DeadLetter, queue: str, settings: AppOptions) -> NewJob:
    """The job as new: retries, failures and an `expires` that has passed long ago are forgotten."""
    if letter.reason is Reason.UNREADABLE:
        raise JobError(
            f"{letter.job_id} cannot be retried: it could not be read ({letter.error}), and only its first bytes"
            " are kept. Enqueue the job anew, and discard this.",
            letter.job_id,
        )
    try:
        job = wire.decode_job(letter.body, settings.max_payload)
        options = wire.decode_options(job.options)
        if options.expires and options.sig:
            _verify(job, letter.job_id, queue, settings)
    except (wire.Unreadable, BadSignature) as error:
        raise JobError(f"{letter.job_id} cannot be retried: {error}", letter.job_id) from None
    said = wire.encode_options(msgspec.structs.replace(options, expires=0)) if options.expires else job.options
    fresh = msgspec.structs.replace(job, options=said, retries=0, failures=[], started_at=0, parked_at=0)
    if options.expires and options.sig and settings.signing_keys is not None:
        fresh.options = settings.signing_keys.sign(settings.namespace, queue, letter.job_id, fresh)
    return NewJob(letter.job_id, wire.encode_job(fresh), letter.priority)


def _verify(job: JobBody, job_id: str, queue: str, settings: AppOptions) -> None:
    """What is changed here is signed anew, so it must have been good before. Raises `BadSignature`."""
    if settings.signing_keys is None:
        raise BadSignature("its `expires` is signed, and has to be forgotten: give signing_keys (STREAMQ_SIGNING_KEYS)")
    settings.signing_keys.verify(settings.namespace, queue, job_id, job)


def _alone(*filters: object) -> None:
    if any(each is not None for each in filters):
        raise ConfigurationError(
            "Give a job id or filters (task, error, older_than), not both: the id names one already."
        )
