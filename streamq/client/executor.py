"""Where a task runs on its worker: on the event loop, in a thread, or in a child process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from streamq.client.depends import dependencies_of
from streamq.client.signature import Parameters
from streamq.errors import ConfigurationError

Executor = Literal["loop", "thread", "process"]

_UNFIT: Final = {
    ("loop", False): "it is a plain def, which would block the event loop: write async def, or leave the option out",
    ("thread", True): "it is an async def, which runs on the event loop: leave the option out, or write a plain def",
    ("process", True): "it is an async def, which runs on the event loop: write a plain def",
}


class Address(NamedTuple):
    """Where another process finds a function."""

    module: str
    qualname: str


def executor(name: str, value: object) -> str:
    """One of the three words. Raises `ConfigurationError`."""
    if value not in ("loop", "thread", "process"):
        raise ConfigurationError(f'{name}={value!r} is not known: give "loop", "thread" or "process".')
    return value


def address_of(fn: Callable[..., Any], asked: str, is_async: bool, parameters: Parameters) -> Address | None:
    """Where a child process finds the function of a task, or None for a task that needs none.

    Raises `ConfigurationError` if the function cannot run where it was asked to.
    """
    if asked and (problem := _UNFIT.get((asked, is_async))):
        raise _unfit(parameters.task, asked, problem)
    if asked != "process":
        return None
    if parameters.wants_context:
        problem = "its first parameter is a Context, which stays in the worker's process: do without it"
        raise _unfit(parameters.task, asked, f'{problem}, or use executor="thread"')
    if depends := dependencies_of(fn):
        names = ", ".join(depends)
        problem = f"Depends fills in {names}, in the worker's process: let the function make it, or pass plain values"
        raise _unfit(parameters.task, asked, problem)
    return _importable(fn, parameters.task)


def _importable(fn: Callable[..., Any], task: str) -> Address:
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not module or not qualname or "<" in qualname:  # <locals>, <lambda>
        where = "it has no name of its own" if not qualname else f"{qualname} is made inside of a function"
        raise _unfit(task, "process", f"{where}, and a child process cannot import it: define it with def in a module")
    if module == "__main__" and not (module := main_module()):
        raise _unfit(task, "process", "it stands in a session or a script that nobody can import: put it into a module")
    return Address(module, qualname)


def main_module() -> str:
    """The name under which another process can import what is `__main__` here; empty if it cannot."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None and spec.name:  # python -m shop.tasks
        return str(spec.name)
    file = Path(getattr(main, "__file__", None) or "")
    return file.stem if file.suffix == ".py" else ""


def _unfit(task: str, asked: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f'{task} cannot have executor="{asked}": {problem}.')
