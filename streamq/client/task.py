"""A function as a task: called, it runs here; enqueued, it runs on a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial, update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from streamq.client.call import NO_CALL_OPTIONS, Call, CallOptions, CallSettings, as_arguments, call_options
from streamq.client.context import Context, current_context, current_job_id, local_context
from streamq.client.depends import Opened, Plan, close_all
from streamq.client.executor import Address, address_of
from streamq.client.handle import Job
from streamq.client.naming import task_name
from streamq.client.partial import Nowhere, Send, Signature
from streamq.client.settings import TaskSettings, task_options
from streamq.client.signature import Parameters
from streamq.core.options import TaskOptions
from streamq.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")


class BoundTask(Generic[P, R]):
    """A task with options for its next calls. A value: `using` on it gives another one.

    await fetch.using(queue="slow", countdown="10m").enqueue(url)
    """

    __slots__ = ("_options", "_task")

    def __init__(self, task: Task[P, R], options: CallOptions) -> None:
        self._task = task
        self._options = options

    def using(self, **options: Unpack[CallSettings]) -> BoundTask[P, R]:
        """More options on top of these. Raises `ConfigurationError`."""
        return BoundTask(self._task, call_options(self._options, options))

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Hand one call to Redis, and return once it is there. Raises as `Task.enqueue` does."""
        return await self._task.outlet.send(Call(self._task.name, args, kwargs, self._options))

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`enqueue` for threads and plain scripts. Raises as `Task.enqueue` does."""
        return self._task.outlet.send_sync(Call(self._task.name, args, kwargs, self._options))

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Celery's name for `enqueue`."""
        return await self.enqueue(*args, **kwargs)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """The call as a value, with these options."""
        task = self._task
        return Signature(task.name, args, kwargs, self._options, task.outlet, parameters=task.signature)

    def __repr__(self) -> str:
        return f"<{self._task!r} using {self._options}>"


class Task(Generic[P, R]):
    """A task as `@app.task` makes it. Calling it runs the function here, as if it were not decorated.

    `name` identifies it in Redis, so moving the function renames it unless the decorator gives a name.

        job = await add.enqueue(2, 3)
    """

    def __init__(self, fn: Callable[..., Any], settings: TaskSettings) -> None:
        self.fn: Final = fn
        self.settings: Final = settings
        self.original_name: Final = settings.get("name") or task_name(fn)
        self.name = self.original_name
        self.is_async: Final = _is_async(fn, self.name)
        self.options: TaskOptions = task_options(settings)
        self.signature: Parameters = Parameters(self.name, fn)
        self.address: Final[Address | None] = address_of(fn, self.options.executor, self.is_async, self.signature)
        self.outlet: Send = Nowhere(self.name)
        plan = Plan(fn)
        self._plan: Final = plan if plan.gives else None
        update_wrapper(cast(Any, self), fn, updated=())

    def included(self, outlet: Send, name: str, options: TaskOptions) -> None:
        """Belong to an application from now on; the last one that includes a task gets its jobs."""
        if name != self.name:
            self.signature = Parameters(name, self.fn)
        self.outlet, self.name, self.options = outlet, name, options

    # ---- enqueue -------------------------------------------------------------------------------------

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Hand one call to Redis, and return once it is there.

        Raises `InvalidArguments` and `PayloadTooLarge` before anything is sent, `IdempotencyMismatch`,
        `QueueFull`, `BrokerUnavailable`, `NotDurable`.

            job = await add.enqueue(2, y=3)
        """
        return await self.outlet.send(Call(self.name, args, kwargs))

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`enqueue` for threads, Django views and plain scripts.

        It goes through a background thread with connections of its own. On an event loop it works too, and
        blocks that loop for one round trip. Raises as `enqueue` does.
        """
        return self.outlet.send_sync(Call(self.name, args, kwargs))

    def using(self, **options: Unpack[CallSettings]) -> BoundTask[P, R]:
        """Options for the next call, apart from the task's arguments. Raises `ConfigurationError`.

        await fetch.using(queue="slow", countdown="10m", idempotency_key="k").enqueue(url)
        """
        return BoundTask(self, call_options(NO_CALL_OPTIONS, options))

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Celery's name for `enqueue`."""
        return await self.enqueue(*args, **kwargs)

    async def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallSettings],
    ) -> Job[R]:
        """Celery's way to enqueue with options: `await add.apply_async((2, 3), countdown=10)`."""
        given, named = as_arguments(self.name, args, kwargs)
        return await self.outlet.send(Call(self.name, given, named, call_options(NO_CALL_OPTIONS, options)))

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """The call, perhaps a partial one, as a value that can be sent later: `app.enqueue_many([add.s(1, 2)])`."""
        return Signature(self.name, args, kwargs, NO_CALL_OPTIONS, self.outlet, parameters=self.signature)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """`s` that takes no more arguments later."""
        return Signature(
            self.name, args, kwargs, NO_CALL_OPTIONS, self.outlet, immutable=True, parameters=self.signature
        )  # fmt: skip

    # ---- run -----------------------------------------------------------------------------------------

    async def run(
        self,
        ctx: Context[Any],
        args: Iterable[object],
        kwargs: Mapping[str, object],
        *,
        limiter: CapacityLimiter | None = None,
    ) -> object:
        """Run the function as a worker does: Context and Depends filled in, a plain `def` in a thread.

        A thread cannot be interrupted: when the job is cancelled, a plain function is left running on its own.
        """
        context = current_context.set(ctx)
        job = current_job_id.set(ctx.job_id)
        try:
            return await self.call(ctx, args, kwargs, limiter)
        finally:
            current_job_id.reset(job)
            current_context.reset(context)

    def call(
        self,
        ctx: Context[Any],
        args: Iterable[object],
        kwargs: Mapping[str, object],
        limiter: CapacityLimiter | None = None,
    ) -> Coroutine[Any, Any, object]:
        """`run` for who has set `current_context` and `current_job_id`: a job's own asyncio task resets nothing."""
        if self._plan is None:
            return self._invoke(ctx, args, kwargs, limiter)
        return self._invoke_with(self._plan, ctx, args, kwargs, limiter)

    def _invoke(
        self,
        ctx: Context[Any],
        args: Iterable[object],
        kwargs: Mapping[str, object],
        limiter: CapacityLimiter | None,
    ) -> Coroutine[Any, Any, object]:
        first = (ctx,) if self.signature.wants_context else ()
        if self.is_async:
            coroutine: Coroutine[Any, Any, object] = self.fn(*first, *args, **kwargs)
            return coroutine
        call = partial(self.fn, *first, *args, **kwargs)
        return anyio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)

    async def _invoke_with(
        self,
        plan: Plan,
        ctx: Context[Any],
        args: Iterable[object],
        kwargs: Mapping[str, object],
        limiter: CapacityLimiter | None,
    ) -> object:
        opened: list[Opened] = []
        try:
            given = await plan.open(ctx, opened, limiter)
            result = await self._invoke(ctx, args, {**given, **kwargs}, limiter)
        except BaseException as error:
            await close_all(opened, error)
            raise
        await close_all(opened, None)
        return result

    def _call_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A plain call. With Context or Depends parameters, they are filled in here too, for what is not given."""
        depends = [name for name, _ in self._plan.gives] if self._plan else []
        missing = [name for name in depends if name not in kwargs]
        ctx: Context[Any] = current_context.get() or local_context(self.name)
        given = self.signature.wants_context and bool(args) and isinstance(args[0], Context)
        if given:
            ctx, args = args[0], args[1:]  # pyright: ignore[reportUnknownVariableType]
        if not missing:
            return self.fn(ctx, *args, **kwargs) if self.signature.wants_context else self.fn(*args, **kwargs)
        run = partial(self.run, ctx, args, kwargs)
        return run() if self.is_async else anyio.run(run)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class AsyncTask(Task[P, R]):
    """A task made of an `async def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the function here: `await add(2, 3)`."""
        return cast("Coroutine[Any, Any, R]", self._call_here(args, kwargs))


class SyncTask(Task[P, R]):
    """A task made of a plain `def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here."""
        return cast(R, self._call_here(args, kwargs))


def make_task(fn: Callable[..., Any], settings: TaskSettings) -> Task[..., Any]:
    """The task of a function. Raises `ConfigurationError`."""
    if isinstance(cast(object, fn), Task):
        raise ConfigurationError(f"{fn!r} is a task already: decorate the function once.")
    if not callable(fn):
        raise ConfigurationError(
            f"@task is for functions, and {fn!r} is none. Options are given by name: @app.task(name='shop.send')."
        )
    if _is_async(fn, str(fn)):
        return AsyncTask[..., Any](fn, settings)
    return SyncTask[..., Any](fn, settings)


def _is_async(fn: Callable[..., Any], name: str) -> bool:
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise ConfigurationError(
            f"{name} is a generator function: a task returns its result. Collect what it yields in a list."
        )
    call = getattr(fn, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)
