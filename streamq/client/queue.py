"""A queue as its owner asks about it, and governs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from typing import Final

from streamq.broker import wire
from streamq.broker.archive import Kept
from streamq.broker.history import History, Transition, TransitionKind
from streamq.broker.inspector import QueueInfo, WorkerInfo
from streamq.broker.listing import PAGE, Listing
from streamq.broker.values import Found, Pause
from streamq.client.info import JobInfo, cancelled, describe
from streamq.client.link import Link
from streamq.core.clock import Duration, milliseconds
from streamq.core.job import State
from streamq.errors import ConfigurationError

WAITS: Final = frozenset({State.PENDING, State.SCHEDULED, State.RETRY, State.QUEUED})
PURGED: Final = "purged"
SLACK_MS: Final = 1_000  # by which the clock of a producer may be ahead


class Queue:
    """One queue of the application.

    print((await app.queue("emails").info()).queued)
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self.name = name

    async def info(self) -> QueueInfo:
        """How many jobs wait, run, are delayed and are dead; the oldest's age; how many workers; if it is paused."""
        return await (await self._link.inspector()).queue(self.name)

    async def workers(self) -> list[WorkerInfo]:
        """The live workers of this queue."""
        return await (await self._link.inspector()).workers(self.name)

    async def jobs(self, state: State | None = None, task: str | None = None, limit: int = 100) -> list[JobInfo]:
        """At most `limit` jobs as they are now, in the order of a job's life; `task` is a name or a pattern.

        Scheduled ones and retries by their due time, queued ones in the order in which workers will take them,
        running ones, and those that ended, the newest first: as far back as the history (`events`) and the records
        (`result_ttl`) reach, and all dead letters. Raises `ConfigurationError` for a state that does not exist.

            await app.queue("emails").jobs("QUEUED", task="mail.*")
        """
        broker, inspector = await self._link.open(), await self._link.inspector()
        found = [each async for each in _first(limit, Listing(broker).walk(self.name, _states(state), task))]
        running = any(each.where == "running" for each in found)
        told = await inspector.workers(self.name) if running else []
        since = {job_id: at for worker in told for job_id, _, at in worker.running}
        now = broker.clock.now_ms()
        return [
            describe(
                each,
                self._link.options.max_payload,
                since.get(each.job_id, now - each.idle) if each.where == "running" else 0,
                now,
            )
            for each in found
        ]

    async def ids(self, *states: State, task: str | None = None) -> AsyncGenerator[str, None]:
        """The ids of all jobs in these states (none given: in any), read page by page, for work on many of them.

        async for id in app.queue("emails").ids(State.RETRY, task="mail.*"): ...
        """
        broker = await self._link.open()
        async with aclosing(Listing(broker).walk(self.name, states or tuple(State), task)) as jobs:
            async for each in jobs:
                yield each.job_id

    async def history(
        self, limit: int = 100, kinds: Collection[str] | None = None, since: Duration | None = None
    ) -> list[Transition]:
        """What happened to the queue's jobs, the newest first, at most `limit` transitions and of these `kinds`.

        As far back as the queue remembers (`events`), and not longer ago than `since`, a duration. Of one job, with the
        reasons: `Job.timeline`. Raises `ConfigurationError` for a kind that does not exist.

            await app.queue("emails").history(kinds=["failed", "taken-over"], since="10m")
        """
        wanted = _kinds(kinds)
        broker = await self._link.open()
        oldest = 0 if since is None else broker.clock.now_ms() - milliseconds(since, name="since")
        found: list[Transition] = []
        async with aclosing(History(broker).backward(self.name, since=oldest)) as transitions:
            while len(found) < limit and (each := await anext(transitions, None)) is not None:
                if each.kind in wanted:
                    found.append(each)
        return found

    async def pause(self, reason: str = "") -> Pause:
        """Let no job of this queue start, on any worker, until `resume`; running ones go on. Since when that holds.

        Jobs can be enqueued as ever, and delayed ones come due. A job that a worker takes at this very moment may
        still start. Raises `BrokerUnavailable`, `QueueFull`.

            await app.queue("emails").pause("the provider is down")
        """
        return await (await self._link.open()).pause(self.name, reason)

    async def resume(self) -> bool:
        """Let the jobs of this queue start again, at once; False if it was not paused."""
        return await (await self._link.open()).resume(self.name)

    async def purge(self, dry_run: bool = False, progress: Callable[[int], None] | None = None) -> int:
        """Cancel all that waits: queued, scheduled, retrying, of unknown task. Running jobs go on. Returns how many.

        Whoever waits for one of them hears of it as of any cancelled job. What is enqueued meanwhile is left.
        `dry_run` counts and does nothing; `progress` is told the number of each page of 100 at most.

            await app.queue("emails").purge()
        """
        if dry_run:
            info = await self.info()
            return info.queued + info.scheduled
        broker, options = await self._link.open(), self._link.options
        total, begun = 0, broker.clock.now_ms()
        ends: list[Kept] = []

        async def flush() -> int:
            count = await broker.purge(self.name, PURGED, ends)
            ends.clear()
            if progress is not None:
                progress(count)
            return count

        async with aclosing(Listing(broker).walk(self.name, WAITS)) as jobs:
            async for found in jobs:
                record, ttl = cancelled(found.body, found.priority, options, PURGED, broker.clock.now_ms())
                if record.enqueued_at <= begun + SLACK_MS:  # what comes after that is not of the user's choice
                    ends.append(Kept(found.job_id, ttl, wire.encode_record(record)))
                if len(ends) == PAGE:
                    total += await flush()
        return total + await flush()

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


def _states(state: State | None) -> tuple[State, ...]:
    if state is None:
        return tuple(State)
    if state not in tuple(State):
        raise ConfigurationError(f"state={state!r} is no state of a job: there are {', '.join(State)}.")
    return (State(state),)


def _kinds(kinds: Collection[str] | None) -> frozenset[str]:
    known = frozenset(TransitionKind)
    wanted = known if kinds is None else frozenset(kinds)
    if wrong := sorted(wanted - known):
        raise ConfigurationError(f"{wrong[0]!r} is no kind of transition: there are {', '.join(TransitionKind)}.")
    return wanted


async def _first(limit: int, jobs: AsyncGenerator[Found, None]) -> AsyncGenerator[Found, None]:
    async with aclosing(jobs):
        left = limit
        while left > 0 and (found := await anext(jobs, None)) is not None:
            left -= 1
            yield found
