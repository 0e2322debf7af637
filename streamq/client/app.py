"""The application: one Redis, one namespace, and the tasks of a program."""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from inspect import signature
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack, cast

from msgspec import Raw

from streamq.broker import wire
from streamq.broker.broker import Broker, NewJob
from streamq.broker.session import OPEN_TIMEOUT
from streamq.client.beat import entries
from streamq.client.call import NO_CALL_OPTIONS, Call, CallSettings, as_arguments, call_options, queue_name
from streamq.client.context import StateT
from streamq.client.dead import DeadLetters
from streamq.client.dispatch import Dispatch
from streamq.client.handle import Job
from streamq.client.hooks import Events, Listener, Middleware, run_chain
from streamq.client.link import Known, Link
from streamq.client.partial import Signature
from streamq.client.queue import Queue
from streamq.client.registry import Registry, Scheduled
from streamq.client.router import Router, shared
from streamq.client.routes import Routes, RouteTable
from streamq.client.schedules import Schedules
from streamq.client.settings import (
    DEFAULT_URL,
    HOOKS,
    AppSettings,
    app_options,
    payload_codec,
    retry_policy,
    task_options,
)
from streamq.client.task import Task
from streamq.core.codec import PayloadCodec
from streamq.core.cron import as_schedule
from streamq.core.options import AppOptions
from streamq.errors import ConfigurationError

ListenerT = TypeVar("ListenerT", bound=Listener)
Lifespan = Callable[[], AbstractAsyncContextManager[StateT]] | Callable[[Any], AbstractAsyncContextManager[StateT]]


class Application(Registry, Generic[StateT]):
    """Tasks, schedules and settings of one program, and its connection to Redis.

    `url` is redis://, rediss://, unix:// or embedded://, else STREAMQ_URL, else redis://localhost:6379/0.
    `lifespan` is an async context manager function that gives `ctx.state`; workers enter it, producers do not.
    `routes` says which queue tasks go to, `beat_schedule` is Celery's dict of periodic tasks, `codec` encodes
    arguments and results, to encrypt them: see `PayloadCodec`. The other settings are those of `AppSettings`; each
    scalar one can be given as STREAMQ_<NAME>. Raises `ConfigurationError`.

        app = StreamQ("redis://localhost:6379/0", namespace="shop", lifespan=lifespan)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        lifespan: Lifespan[StateT] | None = None,
        routes: Routes | None = None,
        middleware: Sequence[Middleware] = (),
        beat_schedule: Mapping[str, Mapping[str, Any]] | None = None,
        codec: PayloadCodec | None = None,
        **settings: Unpack[AppSettings],
    ) -> None:
        super().__init__()
        said = app_options({"namespace": namespace, **settings})
        self.options: Final[AppOptions] = said if codec is None else replace(said, codec=payload_codec(codec))
        self.lifespan: Final = lifespan
        self.middleware: Final = tuple(middleware)
        self.events: Final = Events()
        self.run_chain: Final = run_chain(self.middleware)
        self._retries = retry_policy(settings)
        self._routing: Final = RouteTable(routes)
        where = url or os.environ.get("STREAMQ_URL") or DEFAULT_URL
        self.link: Final = Link(where, self.options, Known(lambda: self.queues, self._max_retries, self._decoder))
        self._dispatch: Final = Dispatch(
            self.link, self.tasks, self.options, self._routing, self.events, self.middleware
        )
        shared.follow(self)
        for scheduled in entries(beat_schedule or {}, self.options.tz):
            self.add_schedule(scheduled)

    # ---- tasks ---------------------------------------------------------------------------------------

    def add_task(self, task: Task[..., Any]) -> Task[..., Any]:
        """Enter a task that was made for this application."""
        super().add_task(task)
        self._bind(task, task.name, "")
        return task

    def _bind(self, task: Task[..., Any], name: str, queue: str) -> None:
        settings = {**task.settings}
        if queue and not settings.get("queue"):
            settings["queue"] = queue
        task.included(self._dispatch, name, task_options(settings, self._retries))
        for option, event in HOOKS.items():
            if listener := settings.get(option):
                self.events.on(event, cast(Listener, listener), task=name)

    def include(self, router: Router, *, prefix: str = "", queue: str = "") -> None:
        """Take over a router's tasks and schedules, those too that are added to it later.

        `prefix` is put before the names, `queue` is for tasks that name none. If several applications
        include a router, its tasks enqueue to the last one. Raises `ConfigurationError`.

            app.include(mail.router, prefix="mail.", queue="mail")
        """
        router.follow(self, prefix, queue_name("queue", queue) if queue else "")

    def adopt_task(self, task: Task[..., Any], prefix: str, queue: str) -> None:
        """Take over one task of a router: a copy for this application, and the original sends here."""
        name = task.original_name
        own = copy.copy(task)
        own.included(self._dispatch, prefix + name, own.options)
        super().add_task(own)
        self._bind(own, own.name, queue)
        task.included(self._dispatch, own.name, own.options)

    def adopt_schedule(self, scheduled: Scheduled, prefix: str) -> None:
        """Take over one schedule of a router."""
        self.add_schedule(scheduled.prefixed(prefix))

    def add_schedule(self, scheduled: Scheduled) -> None:
        """Enter a schedule; a cron expression without a time zone gets the application's."""
        super().add_schedule(scheduled.in_zone(as_schedule(scheduled.schedule, self.options.tz)))

    # ---- enqueue -------------------------------------------------------------------------------------

    async def enqueue_many(
        self, signatures: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]], chunk: int = 500
    ) -> list[Job[Any]]:
        """Enqueue many calls, one round trip for each `chunk` of them (at most 500) and queue.

        The iterable is read as it goes. Raises as `Task.enqueue` does; chunks before the failing one are
        enqueued already.

            jobs = await app.enqueue_many(add.s(i, i) for i in range(10_000))
        """
        return await self._dispatch.send_many(signatures, chunk)

    async def enqueue(self, task: str | Task[..., Any], *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueue a task by name, whose code need not be here: `await app.enqueue("shop.mail.send", 42)`."""
        name = task if isinstance(task, str) else task.name
        return await self._dispatch.send(Call(name, args, kwargs))

    async def send_task(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallSettings],
    ) -> Job[Any]:
        """Celery's way to enqueue by name: `await app.send_task("shop.mail.send", (42,), countdown=10)`."""
        given, named = as_arguments(name, args, kwargs)
        return await self._dispatch.send(Call(name, given, named, call_options(NO_CALL_OPTIONS, options)))

    def build(self, signature: Signature[Any], job_id: str = "") -> tuple[str, NewJob]:
        """Queue and job that a call becomes, without sending it: what the scheduler offers to Redis."""
        return self._dispatch.build(signature.call(), self.link, job_id)

    # ---- look ----------------------------------------------------------------------------------------

    @property
    def queues(self) -> list[str]:
        """The queues that tasks and routes name."""
        named = [self._dispatch.route(task, None)[0] for task in self.tasks]
        return list(dict.fromkeys([*named, *self._routing.queues]))

    def _max_retries(self, task: str) -> int | None:
        return self.tasks[task].options.retry.max_retries if task in self.tasks else None

    def _decoder(self, task: str) -> Callable[[Raw], object]:
        return self.tasks[task].signature.result if task in self.tasks else wire.decode_value

    def job(self, id: str, queue: str | None = None) -> Job[Any]:
        """The job with this id, in whatever process it was made; its queue is looked for if it is not given.

        Nothing is asked before the first `await`: an unknown id raises `JobNotFound` there.
        """
        return Job(self.link, id, queue or "", known=False)

    def queue(self, name: str = "default") -> Queue:
        """Sizes, age and workers of one queue: `await app.queue("emails").info()`."""
        return Queue(self.link, queue_name("queue", name))

    def dead_letters(self, queue: str = "default") -> DeadLetters:
        """The jobs of one queue that failed for good: list, show, retry, discard."""
        return DeadLetters(self.link, queue_name("queue", queue))

    def schedules(self) -> Schedules:
        """The schedules: when they fire next, pause and resume one, run one now: `await app.schedules().list()`."""
        return Schedules(self.link, self._dispatch, self.timetable)

    def on(self, event: str) -> Callable[[ListenerT], ListenerT]:
        """Call a function at every event of this name ("*": at all): see `Event`.

        @app.on("job.failed")
        def alert(event: Event) -> None: ...
        """

        def listen(listener: ListenerT) -> ListenerT:
            self.events.on(event, listener)
            return listener

        return listen

    # ---- life ----------------------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """What speaks to Redis."""
        return self.link.broker

    async def open(self, timeout: float = OPEN_TIMEOUT) -> Self:
        """Connect. Enqueueing does that by itself; a start-up that should fail early asks for it.

        `timeout` in seconds; 0 tries once. Raises `BrokerUnavailable` and `UnsuitableServer`.
        """
        await self.link.open(timeout)
        return self

    async def close(self) -> None:
        """Send what is under way, tell the last listeners, disconnect. The application can be opened again."""
        await self.link.drain()  # what is sent tells listeners in its turn, and these may still enqueue
        await self.events.drain()
        await self.link.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def lifespan_context(self) -> AsyncGenerator[StateT, None]:
        """The lifespan, entered by a worker; it gives `ctx.state`. Without one the state is None."""
        if self.lifespan is None:
            yield cast(StateT, None)
            return
        async with self._lifespan_manager(self.lifespan) as state:
            yield state

    def _lifespan_manager(self, lifespan: Callable[..., Any]) -> AbstractAsyncContextManager[StateT]:
        manager = lifespan(self) if len(signature(lifespan).parameters) else lifespan()
        if not hasattr(manager, "__aenter__"):
            raise ConfigurationError(
                f"lifespan={lifespan!r} gave {manager!r}, which is no async context manager:"
                " write @asynccontextmanager above an async def that yields once."
            )
        return cast("AbstractAsyncContextManager[StateT]", manager)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.namespace!r}, {len(self.tasks)} tasks>"
