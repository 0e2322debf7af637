"""An exception on its way out of a child process: as plain values there, and as one that a retry policy knows here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from streamq.broker.wire import decode_value, encode_value
from streamq.core.job import Failure
from streamq.worker.failures import failure_of

# Raised in a coroutine these would mean something else.
_UNFIT: Final = (asyncio.CancelledError, GeneratorExit, StopIteration, StopAsyncIteration)
_TOLD: Final = "_streamq_failure"


class Raised(msgspec.Struct, array_like=True):
    """An exception: its class and those above it, as module and qualified name, and as much of it as is plain."""

    kinds: list[tuple[str, str]]
    args: Raw
    state: dict[str, Raw]
    failure: Failure


def taken_down(error: BaseException) -> Raised:
    """The exception as values. Never raises, whatever the exception is."""
    kinds = [(kind.__module__, kind.__qualname__) for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    failure = failure_of(error, at=0, attempt=0, worker="")
    args = _plain(list(error.args)) or encode_value([failure.message])
    state = {str(name): raw for name, value in vars(error).items() if (raw := _plain(value)) is not None}
    return Raised(kinds, args, state, failure)


def rebuilt(raised: Raised, main: str = "") -> BaseException:
    """The exception as an object of its own class, or of the nearest one above it that is known here.

    Nothing is imported: a policy that names a class has it loaded. `main` is what the other side calls `__main__`.
    """
    args = cast("list[Any]", decode_value(raised.args))
    for kind in _known(raised.kinds, main):
        try:
            error = kind.__new__(kind, *args)  # its __init__ may want other arguments than these
        except Exception:  # noqa: BLE001, S112 - so may its __new__: one above it will do
            continue
        vars(error).update((name, decode_value(raw)) for name, raw in raised.state.items())
        vars(error)[_TOLD] = raised.failure
        return error
    raise AssertionError("BaseException is always known")


def told(error: BaseException) -> Failure | None:
    """What the child process said of an exception: its message and its traceback."""
    return cast("Mapping[str, Failure]", vars(error)).get(_TOLD)


def _plain(value: object) -> Raw | None:
    try:
        return encode_value(value)
    except Exception:  # noqa: BLE001 - anything can be kept in an exception
        return None


def _known(kinds: list[tuple[str, str]], main: str) -> Iterator[type[BaseException]]:
    for module, qualname in kinds:
        found: object = sys.modules.get("__main__" if module == main else module)
        for name in qualname.split("."):
            found = getattr(found, name, None)
        if isinstance(found, type) and issubclass(found, BaseException) and not issubclass(found, _UNFIT):
            yield found
