"""The two seams: middleware stands around a call and around a job, events tell what happened."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec

from streamq.client.call import Call, unknown_option
from streamq.client.context import Context
from streamq.core.job import State

logger = logging.getLogger("streamq.events")

NAMES: Final = {
    "job.enqueued": "a producer's job is in Redis",
    "job.started": "an attempt begins",
    "job.succeeded": "the task returned, and that is recorded",
    "job.failed": "the job ended in FAILURE",
    "job.retrying": "an attempt failed, another one will follow",
    "job.exhausted": "the last permitted retry failed; a job.failed is sent as well",
    "job.cancelled": "the job was cancelled",
    "job.expired": "its expires passed before it could start",
    "job.snoozed": "the task asked to be run later",
    "job.dead": "the job is a dead letter now",
    "job.released": "a worker that shuts down gave the job back",
    "job.lost": "the worker lost the job's lease: another one runs it",
    "worker.started": "a worker takes jobs from now on",
    "worker.stopped": "a worker has ended",
    "loop.stalled": "the event loop runs again after it stood still; the job and `reason`, the line, say who held it",
}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a job or a worker. `at` is epoch ms, durations are seconds."""

    name: str
    job_id: str = ""
    task: str = ""
    queue: str = ""
    attempt: int = 0
    at: int = 0
    state: State | None = None
    error: str = ""
    reason: str = ""
    duration: float = 0.0
    delay: float = 0.0
    worker: str = ""
    traceback: str = ""


Listener = Callable[[Event], Awaitable[None] | None]


class Events:
    """Who listens to what. A listener that raises is logged; no job ever notices.

    A plain listener runs where the event happens and must be quick; an async one becomes a task of its own.
    """

    def __init__(self) -> None:
        self._listeners: defaultdict[tuple[str, str], list[Listener]] = defaultdict(list)
        self._wanted: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()

    def on(self, name: str, listener: Listener, *, task: str = "") -> None:
        """Call `listener` at every event of this name, "*" for all; `task` limits it to one task's jobs.

        Raises `ConfigurationError` for a name that does not exist.
        """
        if name != "*" and name not in NAMES:
            raise unknown_option(name, NAMES, "event")
        self._listeners[name, task].append(listener)
        self._wanted |= set(NAMES) if name == "*" else {name}

    def wants(self, name: str) -> bool:
        """Whether anybody listens: ask before an `Event` is built."""
        return name in self._wanted

    def emit(self, event: Event) -> None:
        """Tell all who listen."""
        keys = {(name, task) for name in (event.name, "*") for task in (event.task, "")}
        for key in sorted(keys & self._listeners.keys()):
            for listener in self._listeners[key]:
                self._tell(listener, event)

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            answer = listener(event)
            if inspect.isawaitable(answer):
                task = asyncio.get_running_loop().create_task(_finish(answer, listener, event))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        except Exception:
            logger.exception("the listener %r of %s failed", listener, event.name)

    async def drain(self) -> None:
        """Wait for the async listeners that are under way in this event loop."""
        loop = asyncio.get_running_loop()
        while waiting := [task for task in tuple(self._running) if task.get_loop() is loop]:
            await asyncio.wait(waiting)


async def _finish(answer: Awaitable[None], listener: Listener, event: Event) -> None:
    try:
        await answer
    except Exception:
        logger.exception("the listener %r of %s failed", listener, event.name)


class Middleware:
    """Stands around every call (`send`, where it is enqueued) and every attempt (`run`, on the worker).

    Override one or both; `proceed()` goes on. The first of the application's list stands outermost.

        class Timing(Middleware):
            async def run(self, ctx, proceed):
                started = time.perf_counter()
                try:
                    return await proceed()
                finally:
                    print(ctx.task, time.perf_counter() - started)
    """

    async def send(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Around one enqueue: `proceed()` gives the `Job`. The call may be changed before it."""
        return await proceed()

    async def run(self, ctx: Context[Any], proceed: Callable[[], Awaitable[object]]) -> object:
        """Around one attempt: `proceed()` gives what the task returned, or raises what it raised."""
        return await proceed()


SubjectT = TypeVar("SubjectT")
Proceed = Callable[[], Awaitable[Any]]
Chain = Callable[[SubjectT, Proceed], Coroutine[Any, Any, Any]]


def _chain(layers: Sequence[Chain[SubjectT]]) -> Chain[SubjectT] | None:
    """One function of many, the first outermost; None if there is none, so that nothing is built per job."""
    if not layers:
        return None
    first, rest = layers[0], _chain(layers[1:])
    if rest is None:
        return first
    return lambda subject, proceed: first(subject, lambda: rest(subject, proceed))


def send_chain(middleware: Sequence[Middleware]) -> Chain[Call] | None:
    """The send sides of all middleware that have one."""
    return _chain([each.send for each in middleware if type(each).send is not Middleware.send])


def run_chain(middleware: Sequence[Middleware]) -> Chain[Context[Any]] | None:
    """The run sides of all middleware that have one."""
    return _chain([cast(Chain[Context[Any]], each.run) for each in middleware if type(each).run is not Middleware.run])
