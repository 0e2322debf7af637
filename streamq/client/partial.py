"""A call as a value: to be sent later, many at once, or by a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NoReturn, Protocol, TypeVar, Unpack

from streamq.client.call import NO_CALL_OPTIONS, Call, CallOptions, CallSettings, call_options
from streamq.client.handle import Job
from streamq.client.signature import Parameters
from streamq.errors import ConfigurationError, InvalidArguments

R = TypeVar("R")


class Send(Protocol):
    """How a task reaches the application that includes it."""

    async def send(self, call: Call) -> Job[Any]:
        """Enqueue one call."""
        ...

    def send_sync(self, call: Call) -> Job[Any]:
        """The same for code without an event loop."""
        ...


class Nowhere:
    """Where the jobs of a task go that no application includes."""

    def __init__(self, task: str) -> None:
        self._task = task

    def _refuse(self) -> NoReturn:
        raise ConfigurationError(
            f"The task {self._task} belongs to no application yet: app.include(router) first, or create the"
            " StreamQ before a shared_task is used."
        )

    async def send(self, call: Call) -> Job[Any]:
        """Raise `ConfigurationError`."""
        self._refuse()

    def send_sync(self, call: Call) -> Job[Any]:
        """Raise `ConfigurationError`."""
        self._refuse()


class Signature(Generic[R]):
    """A call that has not been made: `add.s(2, 3)`. A value: every method gives another one.

    `add.si(2, 3)` is immutable in Celery's sense: what comes before it in a workflow adds no argument.

        await add.s(2, 3).using(queue="slow").enqueue()
    """

    __slots__ = ("_outlet", "_parameters", "args", "immutable", "kwargs", "options", "task")

    def __init__(
        self,
        task: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: CallOptions = NO_CALL_OPTIONS,
        outlet: Send | None = None,
        *,
        immutable: bool = False,
        parameters: Parameters | None = None,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.immutable = immutable
        self._outlet = outlet or Nowhere(task)
        self._parameters = parameters  # which of its arguments are secret; None: nobody here knows the task

    def using(self, **options: Unpack[CallSettings]) -> Signature[R]:
        """The same call with more options. Raises `ConfigurationError`."""
        said = call_options(self.options, options)
        return self._with(self.args, self.kwargs, said)

    def clone(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """The same call with more arguments: these positional ones come first, as in Celery.

        Raises `InvalidArguments` if it is immutable.
        """
        if self.immutable and (args or kwargs):
            raise InvalidArguments(f"{self!r} is immutable (made by si): it takes no more arguments.")
        named = {**self.kwargs, **kwargs}
        return self._with((*args, *self.args), named, self.options)

    def _with(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: CallOptions) -> Signature[R]:
        return Signature(
            self.task,
            args,
            kwargs,
            options,
            self._outlet,
            immutable=self.immutable,
            parameters=self._parameters,
        )

    def call(self) -> Call:
        """What middleware sees and an application enqueues."""
        return Call(self.task, self.args, dict(self.kwargs), self.options)

    async def enqueue(self) -> Job[R]:
        """Make the call. Raises as `Task.enqueue` does, and `ConfigurationError` for one of no application."""
        return await self._outlet.send(self.call())

    def enqueue_sync(self) -> Job[R]:
        """`enqueue` for threads and plain scripts."""
        return self._outlet.send_sync(self.call())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((Signature, self.task))

    def _identity(self) -> tuple[object, ...]:
        return self.task, self.args, self.kwargs, self.options, self.immutable

    def __repr__(self) -> str:
        known = self._parameters
        args, kwargs = (self.args, self.kwargs) if known is None else known.shown(self.args, self.kwargs)
        shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{self.task}({', '.join(shown)})"
