"""Values that a task is given by its worker: resolved once into a flat plan, closed after the job."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, overload

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from streamq.client.annotations import annotations_of, is_context
from streamq.client.context import Context
from streamq.errors import ConfigurationError

T = TypeVar("T")
Kind = Literal["plain", "coroutine", "generator", "async generator"]


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """The mark that `Depends` leaves as a parameter's default."""

    provider: Callable[..., object]
    use_cache: bool = True


@overload
def Depends(provider: Callable[..., AsyncIterator[T]], *, use_cache: bool = True) -> T: ...
@overload
def Depends(provider: Callable[..., Iterator[T]], *, use_cache: bool = True) -> T: ...
@overload
def Depends(provider: Callable[..., Coroutine[Any, Any, T]], *, use_cache: bool = True) -> T: ...
@overload
def Depends(provider: Callable[..., T], *, use_cache: bool = True) -> T: ...
def Depends(provider: Callable[..., Any], *, use_cache: bool = True) -> Any:  # noqa: N802
    """A parameter's default that the worker replaces by what `provider` gives; callers do not pass it.

    A provider is a function or a generator that yields once, async or not; a plain one runs in a thread.
    It may take a `Context` first and `Depends` of its own. Within one job a provider is asked once, unless
    `use_cache=False`. Generators are continued after the job, the last first; if the task raised, its
    exception is thrown into them. Raises `ConfigurationError` where the task is defined.

        async def count(name: str, db: Session = Depends(session)) -> int: ...
    """
    if not callable(provider):
        raise ConfigurationError(
            f"Depends({provider!r}): give a function or a generator function, not the value it returns."
        )
    return Dependency(provider, use_cache)


def dependencies_of(fn: Callable[..., object]) -> dict[str, Dependency]:
    """The parameters of `fn` whose default is a `Depends`."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(fn).parameters.items()
        if isinstance(parameter.default, Dependency)
    }


@dataclass(frozen=True, slots=True)
class Step:
    """One provider to ask; `needs` are its parameters and the earlier steps that give their values."""

    provider: Callable[..., object]
    kind: Kind
    wants_context: bool
    needs: tuple[tuple[str, int], ...]


class Plan:
    """All providers that one task needs, in the order in which they are asked.

    Raises `ConfigurationError` for a provider that depends on itself, or that asks for something else.
    """

    __slots__ = ("gives", "steps")

    def __init__(self, fn: Callable[..., object]) -> None:
        self.steps: list[Step] = []
        cached: dict[Callable[..., object], int] = {}
        self.gives = tuple((name, self._add(found, cached, (fn,))) for name, found in dependencies_of(fn).items())

    def _add(
        self,
        wanted: Dependency,
        cached: dict[Callable[..., object], int],
        path: tuple[Callable[..., object], ...],
    ) -> int:
        provider = wanted.provider
        if provider in path:
            names = " -> ".join(_name(each) for each in (*path, provider))
            raise ConfigurationError(f"Depends goes in a circle: {names}. One of them must do without.")
        if wanted.use_cache and provider in cached:
            return cached[provider]
        needs = tuple(
            (name, self._add(found, cached, (*path, provider))) for name, found in dependencies_of(provider).items()
        )
        self.steps.append(Step(provider, _kind(provider), _check(provider), needs))
        if wanted.use_cache:
            cached[provider] = len(self.steps) - 1
        return len(self.steps) - 1

    async def open(self, ctx: Context[Any], opened: list[Opened], limiter: CapacityLimiter | None) -> dict[str, object]:
        """Ask every provider; the generators to close go into `opened`, also when a later one raises."""
        values: list[object] = []
        for step in self.steps:
            given = {name: values[index] for name, index in step.needs}
            values.append(await _ask(step, ctx, given, opened, limiter))
        return {name: values[index] for name, index in self.gives}


class Opened:
    """A generator that has yielded its value."""

    __slots__ = ("generator", "limiter")

    def __init__(
        self,
        generator: Generator[object, None, object] | AsyncGenerator[object, None],
        limiter: CapacityLimiter | None,
    ) -> None:
        self.generator = generator
        self.limiter = limiter

    async def close(self, exc: BaseException | None) -> None:
        """Let the generator go on; it must end. A swallowed exception is still that of the job."""
        if isinstance(self.generator, AsyncGenerator):
            await self._close_async(self.generator, exc)
        else:
            await anyio.to_thread.run_sync(_close_sync, self.generator, exc, limiter=self.limiter)

    @staticmethod
    async def _close_async(generator: AsyncGenerator[object, None], exc: BaseException | None) -> None:
        try:
            await (generator.__anext__() if exc is None else generator.athrow(exc))
        except StopAsyncIteration:
            return
        except BaseException as error:
            if error is not exc and not _wraps(error, exc):
                raise
            return
        await generator.aclose()
        raise _yielded_twice(generator)


def _close_sync(generator: Generator[object, None, object], exc: BaseException | None) -> None:
    try:
        if exc is None:
            next(generator)
        else:
            generator.throw(exc)
    except StopIteration:
        return
    except BaseException as error:
        if error is not exc and not _wraps(error, exc):
            raise
        return
    generator.close()
    raise _yielded_twice(generator)


def _wraps(error: BaseException, exc: BaseException | None) -> bool:
    # A StopIteration that leaves a generator is turned into a RuntimeError by the language.
    return isinstance(error, RuntimeError) and exc is not None and error.__cause__ is exc


def _yielded_twice(generator: object) -> RuntimeError:
    return RuntimeError(
        f"the provider {_name_of(generator)} yielded more than once: what stands after its yield closes what it opened"
    )


async def close_all(opened: list[Opened], exc: BaseException | None) -> None:
    """Close in reverse order, all of them; raises what the first failing one raised, after the others.

    Shielded: a cancelled job must not leave its connections checked out.
    """
    failed: BaseException | None = None
    with anyio.CancelScope(shield=True):
        for each in reversed(opened):
            try:
                await each.close(failed or exc)
            except BaseException as error:  # noqa: BLE001 - raised below
                failed = error
    if failed is not None:
        raise failed


async def _ask(
    step: Step,
    ctx: Context[Any],
    given: dict[str, object],
    opened: list[Opened],
    limiter: CapacityLimiter | None,
) -> object:
    args: tuple[Context[Any], ...] = (ctx,) if step.wants_context else ()
    match step.kind:
        case "coroutine":
            return await cast(Coroutine[Any, Any, object], step.provider(*args, **given))
        case "async generator":
            stream = cast(AsyncGenerator[object, None], step.provider(*args, **given))
            value = await _first_async(stream)
            opened.append(Opened(stream, limiter))
            return value
        case "generator":
            generator = cast(Generator[object, None, object], step.provider(*args, **given))
            value = await anyio.to_thread.run_sync(_first, generator, limiter=limiter)
            opened.append(Opened(generator, limiter))
            return value
        case "plain":
            return await anyio.to_thread.run_sync(lambda: step.provider(*args, **given), limiter=limiter)


async def _first_async(stream: AsyncGenerator[object, None]) -> object:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        raise _no_yield(stream) from None


def _first(generator: Generator[object, None, object]) -> object:
    try:
        return next(generator)
    except StopIteration:
        # A StopIteration cannot pass through a coroutine.
        raise _no_yield(generator) from None


def _no_yield(generator: object) -> RuntimeError:
    return RuntimeError(f"the provider {_name_of(generator)} ended without a yield: it must yield its value once")


def _kind(provider: Callable[..., object]) -> Kind:
    if inspect.isasyncgenfunction(provider):
        return "async generator"
    if inspect.isgeneratorfunction(provider):
        return "generator"
    call = getattr(provider, "__call__", None)  # noqa: B004 - an object may have an async __call__
    if inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(call):
        return "coroutine"
    return "plain"


def _check(provider: Callable[..., object]) -> bool:
    """Whether the provider takes a Context first. It may ask for nothing that nobody can give."""
    hints = annotations_of(provider)
    first = True
    wants_context = False
    for name, parameter in inspect.signature(provider).parameters.items():
        if first and is_context(hints.get(name)):
            wants_context = True
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise ConfigurationError(
                f"the provider {_name(provider)} has a parameter {name!r} that nobody gives: a provider takes a"
                " Context first, then only parameters with a default, such as Depends(...)."
            )
        first = False
    return wants_context


def _name_of(generator: object) -> str:
    return getattr(generator, "__qualname__", repr(generator))


def _name(fn: Callable[..., object]) -> str:
    return getattr(fn, "__qualname__", repr(fn))
