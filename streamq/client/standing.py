"""How a job that is known stands: the one cause that counts, and what to do about it."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from streamq.broker.broker import Broker, Found
from streamq.broker.inspector import Inspector, ServerInfo, WorkerInfo
from streamq.broker.listing import Listing
from streamq.client.info import read_job, read_options, state_of
from streamq.client.link import Link
from streamq.core.clock import ago
from streamq.core.job import DeadLetter, Failure, Reason, Record, State
from streamq.core.outcome import UNKNOWN_TASK_PATIENCE_MS
from streamq.core.retry import FOREVER
from streamq.core.shown import counted, one_line, short

MOST: Final = 100  # jobs before it that are counted: each is read
LONGEST: Final = 200  # characters of what somebody else wrote
EARLY: Final = " (acks_early)"
PROMOTED: Final = 10  # seconds within which a worker moves what is due

_WHY: Final = {
    Reason.FAILED: "it failed, and this is not retried: ",
    Reason.EXHAUSTED: "it failed on its last permitted attempt: ",
    Reason.REJECTED: "the task gave it up: ",
    Reason.CRASHED: "",
    Reason.UNREADABLE: "it could not be read: ",
    Reason.UNKNOWN: "",
    Reason.BAD_SIGNATURE: "it was not run: ",
    Reason.UNDECODABLE: "its arguments could not be decoded: ",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a job stands (None: nobody knows it), why, and what to do; `fix` is empty where nothing is to be done.

    str() of it is the answer for people.
    """

    state: State | None
    cause: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.cause} {self.fix}".rstrip()


class Case:
    """One job that was found, and what there is to say of it."""

    def __init__(self, link: Link, broker: Broker, inspector: Inspector, found: Found) -> None:
        self.link = link
        self.broker = broker
        self.inspector = inspector
        self.found = found
        self.queue = found.queue
        self.job, self.options = read_job(found.body, link.options.max_payload)
        self.task = self.job.task if self.job else ""
        self.state = state_of(found)
        self.now = broker.now_ms()
        self._workers: list[WorkerInfo] | None = None

    def says(self, cause: str, fix: str = "") -> Explanation:
        """One answer about it."""
        return Explanation(self.state, cause, fix)

    async def explained(self) -> Explanation:
        """What there is to say."""
        record = self.found.record
        if record is not None and record.state is State.STARTED:
            return await self.early(record)
        if record is not None:
            return await self.ended(record)
        match self.found.where:
            case "running":
                return await self.running()
            case "parked":
                return await self.parked()
            case "due" | "retry":
                return await self.delayed()
            case _:
                return await self.queued()

    # ---- it ended ----------------------------------------------------------------------------------------------

    async def ended(self, record: Record) -> Explanation:
        """It ended, and its record is there."""
        since, job_id = self.since(record.finished_at), self.found.job_id
        match record.state:
            case State.SUCCESS:
                run = ago(max(0, record.finished_at - record.started_at) / 1000)
                return self.says(f"It succeeded {since} ago on {record.worker}, in {run}.", f"streamq result {job_id}")
            case State.CANCELLED:
                why = f": {_quoted(record.reason)}" if record.reason else ""
                return self.says(f"It was cancelled {since} ago{why}.")
            case State.EXPIRED:
                late = read_options(record.options).expires
                by = f" within {ago((late - record.enqueued_at) / 1000)}" if late else " in time"
                return self.says(
                    f"It expired {since} ago: no worker could start it{by}.", "Add workers, or allow it more time."
                )
            case _:
                letter = await self.broker.dead_one(self.queue, job_id)
                if letter is not None:
                    return dead(self.queue, letter, self.now)
                error = f": {_error(record.error)}" if record.error else ""
                return self.says(f"It failed {since} ago{error}.", "Its dead letter was discarded: enqueue it anew.")

    async def early(self, record: Record) -> Explanation:
        """It was acknowledged before it began: its worker alone knows more."""
        running = {job_id for worker in await self.workers() for job_id, _, _ in worker.running}
        since = self.since(record.started_at)
        if self.found.job_id in running:
            return self.says(
                f"It has been running on {record.worker} for {since}, acknowledged before it began{EARLY}."
            )
        return self.says(
            f"It was acknowledged before it began{EARLY}, {since} ago, and {record.worker} does not run it"
            " any more: its end is not known.",
            "It will not run again: enqueue it anew if it has to.",
        )

    # ---- a worker holds it --------------------------------------------------------------------------------------

    async def running(self) -> Explanation:
        """A worker holds it, and renews the lease."""
        worker, lease = self.found.consumer, await self.lease()
        held = next((each for each in await self.workers() if each.id == worker), None)
        since = next((at for job_id, _, at in held.running if job_id == self.found.job_id), 0) if held else 0
        silent = self.found.idle / 1000
        if silent >= lease / 2:
            return await self.silent(worker, since, silent)
        if self.found.cancelling is not None:
            why = f" ({_quoted(self.found.cancelling)})" if self.found.cancelling else ""
            return self.says(
                f"It is being cancelled{why}: {worker} was told, and still runs it.",
                "A task ends at its next await; a plain def cannot be interrupted.",
            )
        if held is not None and not since and len(held.running) >= held.concurrency:
            return self.says(
                f"{worker} holds it ready, and all of its slots are taken (concurrency {held.concurrency}).",
                "It starts when one is free; a lower prefetch leaves such jobs to other workers.",
            )
        begun = self.since(since) if since else ago(silent)
        return self.says(
            f"It has been running on {worker} for {begun}. Its lease is good: renewed {ago(silent)} ago,"
            f" for {ago(lease)}."
        )

    async def lease(self) -> float:
        """In seconds: as the queue's workers have it, who may be set up otherwise than this process."""
        said = (each.lease for each in await self.workers() if each.lease)
        return next(said, self.link.options.lease)

    async def silent(self, worker: str, since: int, silent: float) -> Explanation:
        """A worker holds it, and has not been heard of for `silent` seconds."""
        begun = f" for {self.since(since)}" if since else ""
        left = await self.lease() - silent
        cause = f"It is held by {worker}{begun}, which has not renewed its lease for {ago(silent)}: "
        if left > 0:
            cause += f"others may take it over in {ago(left)}."
        else:
            cause += f"since {ago(-left)} others may take it over."
        in_the_way = await self.in_the_way()
        if in_the_way is not None:
            return self.says(f"{cause} {in_the_way.cause}", in_the_way.fix)
        return self.says(cause, f"Nothing need be done; the process or the log of {worker} tells why.")

    # ---- it waits for a time ------------------------------------------------------------------------------------

    async def delayed(self) -> Explanation:
        """It waits for its time."""
        wait = self.found.due - self.now
        if wait <= 0:
            return await self.overdue(-wait)
        when = ago(wait / 1000)
        if self.found.where == "retry" and self.job is not None and self.job.failures:
            cause = (
                f"Retry {self.job.retries}{self.of_how_many()} comes in {when}, after {_error(self.job.failures[-1])}."
            )
        elif self.job is not None and self.job.started_at:
            cause = f"It asked to be run later, and is due in {when}."
        else:
            cause = f"It is due in {when}."
        in_the_way = await self.in_the_way()
        return self.says(f"{cause} {in_the_way.cause}", in_the_way.fix) if in_the_way else self.says(cause)

    def of_how_many(self) -> str:
        """How many retries it has, if that is known here."""
        most = self.link.known.max_retries(self.task) if self.options.max_retries is None else self.options.max_retries
        return "" if most is None or most >= FOREVER else f" of {most}"

    async def overdue(self, late: int) -> Explanation:
        """Its time came `late` ms ago, and nobody moved it."""
        cause = f"It was due {ago(late / 1000)} ago."
        in_the_way = await self.in_the_way() or await self.full()
        if in_the_way is not None:
            return self.says(f"{cause} {in_the_way.cause}", in_the_way.fix)
        return self.says(f"{cause} A worker looks within {PROMOTED} s.")

    async def parked(self) -> Explanation:
        """A worker did not know its task."""
        workers = await self.workers()
        if any(self.task in worker.tasks for worker in workers):
            return self.says(f"Its task {self.task!r} was unknown to a worker, and is known now: {self.offered()}.")
        until = (self.job.parked_at if self.job else self.now) + UNKNOWN_TASK_PATIENCE_MS
        cause = (
            f"{self.unregistered(workers)} It is {self.offered()}, and becomes a dead letter in"
            f" {ago(max(0, until - self.now) / 1000)}."
        )
        return self.says(cause, self.register())

    def offered(self) -> str:
        """When it comes to a worker again."""
        return f"offered again in {ago(max(0, self.found.due - self.now) / 1000)}"

    # ---- it could run -------------------------------------------------------------------------------------------

    async def queued(self) -> Explanation:
        """It could run."""
        in_the_way = await self.in_the_way()
        if in_the_way is not None:
            return in_the_way
        info, workers = await self.inspector.queue(self.queue), await self.workers()
        slots = sum(worker.concurrency for worker in workers)
        taken = min(slots, max(info.running, sum(len(worker.running) for worker in workers)))
        who = "the only worker" if len(workers) == 1 else f"the {len(workers)} workers"
        has = "has" if len(workers) == 1 else "have"
        cause = f"{await self.place()}, and {who} of the queue {self.queue!r} {has} {taken} of {slots} slots taken"
        if taken >= slots:
            return self.says(f"{cause}.", "More workers, or a higher --concurrency, would start it sooner.")
        return await self.full() or self.says(
            f"{cause}: it starts within a moment.", "If it still waits in a minute: streamq doctor"
        )

    async def place(self) -> str:
        """How many jobs will be taken before it."""
        count = 0
        async with aclosing(Listing(self.broker).walk(self.queue, {State.QUEUED})) as jobs:
            async for found in jobs:
                if found.job_id == self.found.job_id or count == MOST:
                    break
                count += 1
        if not count:
            return "It is next"
        return f"It waits behind {f'{MOST} jobs or more' if count == MOST else counted(count, 'job')}"

    # ---- what can stand in the way of any job -------------------------------------------------------------------

    async def in_the_way(self) -> Explanation | None:
        """What would keep it from starting whenever it could: a pause, no worker, no worker that knows the task."""
        if (pause := await self.broker.paused(self.queue)) is not None:
            why = f" ({_quoted(pause.reason)})" if pause.reason else ""
            return self.says(
                f"The queue {self.queue!r} has been paused for {self.since(pause.since)}{why}.",
                f"streamq queues resume {self.queue}",
            )
        workers = await self.workers()
        if not workers:
            return self.says(
                f"No live worker serves the queue {self.queue!r}{await self.elsewhere()}.",
                f"streamq worker MODULE:APP -Q {self.queue}",
            )
        if self.task and not any(self.task in worker.tasks for worker in workers):
            return self.says(self.unregistered(workers), self.register())
        return None

    async def elsewhere(self) -> str:
        """Which queues live workers serve."""
        queues = [each for each in await self.broker.queues() if each != self.queue]  # which has none
        served = await asyncio.gather(*(self.inspector.workers(each) for each in queues))
        names = [repr(name) for name, workers in zip(queues, served, strict=True) if workers]
        return f": they serve {', '.join(names)}" if names else ", nor any other queue of its namespace"

    def unregistered(self, workers: Sequence[WorkerInfo]) -> str:
        """That nobody knows its task, and the names that are near."""
        near = difflib.get_close_matches(self.task, {task for worker in workers for task in worker.tasks}, n=3)
        hint = f" (nearest: {', '.join(sorted(near))})" if near else ""
        return f"No worker of the queue {self.queue!r} knows the task {self.task!r}{hint}."

    def register(self) -> str:
        """What to do about that."""
        return f"Start a worker whose application imports the module of {self.task!r}, or mend the name."

    async def full(self) -> Explanation | None:
        """That the server has no memory left, if so."""
        text = out_of_memory([await self.inspector.server(self.queue)])
        return self.says(text, ROOM) if text else None

    async def workers(self) -> list[WorkerInfo]:
        """The live workers of its queue, asked for once."""
        if self._workers is None:
            self._workers = await self.inspector.workers(self.queue)
        return self._workers

    def since(self, at: int) -> str:
        """How long ago something was."""
        return ago(max(0, self.now - at) / 1000)


ROOM: Final = "Let the workers catch up, raise maxmemory, or see what else fills it: redis-cli INFO memory"


def out_of_memory(servers: Iterable[ServerInfo]) -> str:
    """That one of the servers has no memory left; empty if all have."""
    server = next((each for each in servers if each.full), None)
    if server is None:
        return ""
    used, limit = (f"{size / 1_000_000:,.0f} MB" for size in (server.used, server.limit))
    return f"Redis is out of memory ({used} used, maxmemory {limit}): new jobs are refused, and due ones are not moved."


def dead(queue: str, letter: DeadLetter, now: int) -> Explanation:
    """Of a dead letter: why it is one, and how to go on."""
    attempts = f", after {counted(letter.attempts, 'attempt')}" if letter.attempts else ""
    since = ago(max(0, now - letter.at) / 1000)
    name, _, message = letter.error.partition(": ")
    error = _quoted(message if name.startswith("streamq.") else letter.error.removeprefix("builtins."))
    return Explanation(
        State.FAILURE,
        f"It has been a dead letter of the queue {queue!r} for {since}{attempts}: {_WHY[letter.reason]}{error}.",
        f"streamq dlq show {letter.job_id}, and once the cause is mended streamq dlq retry {letter.job_id}",
    )


def _error(failure: Failure) -> str:
    return _quoted(f"{failure.error.removeprefix('builtins.')}: {failure.message}".rstrip(": "))


def _quoted(text: str) -> str:
    """Within a sentence, which has a full stop of its own."""
    return short(one_line(text).rstrip(". "), LONGEST)
