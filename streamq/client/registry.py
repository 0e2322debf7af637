"""Where tasks and schedules are written down: what an application and a router have in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from streamq.client.call import NO_CALL_OPTIONS, CallOptions, CallSettings, as_arguments, call_options
from streamq.client.context import Context
from streamq.client.partial import Signature
from streamq.client.settings import TaskSettings
from streamq.client.task import AsyncTask, SyncTask, Task, make_task
from streamq.core.clock import Duration
from streamq.core.cron import Cron, Every, Schedule
from streamq.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")
TaskT = TypeVar("TaskT", bound=Task[..., Any])

CatchUp = Literal["last", "all", "skip"]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One entry of the timetable. `catch_up` says what becomes of occurrences that nobody was there for."""

    name: str
    task: str
    schedule: Schedule
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    catch_up: CatchUp = "last"
    options: CallOptions = NO_CALL_OPTIONS

    def signature(self) -> Signature[Any]:
        """The call that each occurrence makes."""
        return Signature(self.task, self.args, self.kwargs, self.options)

    def in_zone(self, schedule: Schedule) -> Scheduled:
        """The same entry at other times."""
        return replace(self, schedule=schedule)

    def prefixed(self, prefix: str) -> Scheduled:
        """The same entry as an application has it that includes its router with a prefix."""
        return replace(self, name=prefix + self.name, task=prefix + self.task)


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns: takes a function, gives its task."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[Context[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[Context[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[..., Any]:
        """Make the task."""
        ...


class ScheduleDecorator(Protocol):
    """What `@app.cron(...)` returns: takes a function or a task, gives a task."""

    @overload
    def __call__(self, fn: TaskT, /) -> TaskT: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[Context[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[Context[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Make the task, and enter it in the timetable."""
        ...


class Registry:
    """Tasks and schedules by name."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.timetable: dict[str, Scheduled] = {}

    @overload
    def task(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[Context[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, fn: Callable[Concatenate[Context[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskSettings]) -> TaskDecorator: ...
    def task(self, fn: Any = None, /, **options: Unpack[TaskSettings]) -> Any:
        """Make a task of a function: `@app.task`, or with options `@app.task(queue="io", max_retries=5)`.

        An `async def` runs on the worker's event loop, a plain `def` in a thread, or with `executor="process"` in a
        child process. A first parameter annotated `Context` is filled in by the worker. Raises `ConfigurationError`.

            @app.task(autoretry_for=(OSError,), time_limit="30s")
            async def fetch(ctx: Context[State], url: str) -> int: ...
        """
        if fn is not None:
            return self.add_task(make_task(fn, options))
        return lambda fn: self.add_task(make_task(fn, options))  # pyright: ignore

    def cron(
        self,
        expr: str | Cron,
        *,
        tz: str | None = None,
        catch_up: CatchUp = "last",
        name: str = "",
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallSettings],
    ) -> ScheduleDecorator:
        """Enqueue the task at the times of a cron expression; above `@app.task` or on a plain function.

        Five fields, or six with the seconds first, "@daily" and its kin, or a `crontab(...)`. `tz` is the
        application's by default. `catch_up`: of the occurrences that no worker was there for, the "last" is
        made up for, "all" are, or they are skipped. `name` identifies the schedule, by default the task's name.
        Raises `ConfigurationError`.

            @app.cron("0 3 * * *", tz="Europe/Berlin")
            async def nightly() -> None: ...
        """
        if isinstance(expr, Cron):
            schedule = Cron(expr.expression, tz, both_days=expr.both_days) if tz else expr
        else:
            schedule = Cron(expr, tz)
        return self._scheduling(schedule, name, catch_up, args, kwargs, options)

    def every(
        self,
        interval: Duration,
        *,
        catch_up: CatchUp = "last",
        name: str = "",
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallSettings],
    ) -> ScheduleDecorator:
        """Enqueue the task at an interval, counted from the epoch; the parameters are those of `cron`.

        @app.every("90s")
        async def heartbeat() -> None: ...
        """
        return self._scheduling(Every(interval), name, catch_up, args, kwargs, options)

    def _scheduling(
        self,
        schedule: Schedule,
        name: str,
        catch_up: CatchUp,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        options: CallSettings,
    ) -> ScheduleDecorator:
        check_catch_up(catch_up)
        said = call_options(NO_CALL_OPTIONS, options)

        def decorate(fn: Callable[..., Any]) -> Any:
            task = cast("Task[..., Any]", fn) if isinstance(fn, Task) else self.add_task(make_task(fn, {}))
            given, named = as_arguments(task.name, args, kwargs)
            task.signature.check(given, named)
            own = self.name_of(task)
            title = name or (own if own not in self.timetable else f"{own} {schedule}")
            self.add_schedule(Scheduled(title, own, schedule, given, named, catch_up, said))
            return task

        return cast(ScheduleDecorator, decorate)

    def name_of(self, task: Task[..., Any]) -> str:
        """What this registry calls a task."""
        return task.name

    def add_task(self, task: Task[..., Any]) -> Task[..., Any]:
        """Enter a task. Raises `ConfigurationError` if another function has its name."""
        name = self.name_of(task)
        other = self.tasks.get(name)
        if other is not None and _origin(other) != _origin(task):
            raise ConfigurationError(
                f"Two tasks are named {name!r}: {_origin(other)} and {_origin(task)}. Give one of them a name,"
                " @app.task(name=...), or include its router with a prefix."
            )
        self.tasks[name] = task
        return task

    def add_schedule(self, scheduled: Scheduled) -> None:
        """Enter a schedule. Raises `ConfigurationError` if another one has its name."""
        other = self.timetable.get(scheduled.name)
        if other is not None and other.task != scheduled.task:
            raise ConfigurationError(
                f"Two schedules are named {scheduled.name!r}, of {other.task} and {scheduled.task}: rename one."
            )
        self.timetable[scheduled.name] = scheduled


def check_catch_up(value: object) -> CatchUp:
    """Raise `ConfigurationError` unless it is one of the three words."""
    if value not in ("last", "all", "skip"):
        raise ConfigurationError(f'catch_up={value!r} is not known: give "last", "all" or "skip".')
    return value


def _origin(task: Task[..., Any]) -> str:
    return f"{getattr(task.fn, '__module__', '?')}.{getattr(task.fn, '__qualname__', task.fn)}"
