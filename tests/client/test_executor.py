"""Where a task may run is settled when it is defined."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from streamq import ConfigurationError, Context, Depends, StreamQ
from streamq.client.executor import Address

app: StreamQ[Any] = StreamQ("redis://localhost:1")


def plain(number: int) -> int:
    return number


async def coroutine() -> None: ...


def with_context(ctx: Context[Any]) -> None: ...


def setting() -> int:
    return 1


def with_depends(number: int = Depends(setting)) -> None: ...


class Methods:
    @staticmethod
    def static() -> None: ...


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


def test_a_function_of_a_module_has_an_address() -> None:
    assert app.task(executor="process")(plain).address == Address(__name__, "plain")
    assert app.task(name="s", executor="process")(Methods.static).address == Address(__name__, "Methods.static")


def test_what_runs_elsewhere_needs_none() -> None:
    assert app.task(name="a", executor="thread")(plain).address is None
    assert app.task(name="b", executor="loop")(coroutine).address is None
    assert app.task(name="c")(nested()).address is None


@pytest.mark.parametrize(
    ("executor", "fn", "says"),
    [
        ("fork", plain, 'executor=\'fork\' is not known: give "loop", "thread" or "process".'),
        ("process", coroutine, "is an async def, which runs on the event loop: write a plain def"),
        ("thread", coroutine, "leave the option out, or write a plain def"),
        ("loop", plain, "would block the event loop: write async def"),
        (
            "process",
            with_context,
            "a Context, which stays in the worker's process: do without it, or use executor=\"thr",
        ),
        ("process", with_depends, "Depends fills in number, in the worker's process: let the function make it"),
        ("process", lambda: None, "<lambda> is made inside of a function"),
        ("process", nested(), "nested.<locals>.inner is made inside of a function, and a child process cannot import"),
        ("process", functools.partial(plain, 1), "it has no name of its own"),
    ],
)
def test_a_wrong_combination_says_what_to_do(executor: Any, fn: Callable[..., Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        app.task(name="wrong", executor=executor)(fn)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("file", "spec", "module"),
    [
        ("/srv/shop.py", None, "shop"),
        ("/srv/shop", None, ""),
        (None, None, ""),
        ("x", "shop.__main__", "shop.__main__"),
    ],
)
def test_a_script_is_imported_by_the_name_of_its_file(
    monkeypatch: pytest.MonkeyPatch, file: str | None, spec: str | None, module: str
) -> None:
    main: Any = ModuleType("__main__")
    main.__file__ = file
    main.__spec__ = None if spec is None else type("Spec", (), {"name": spec})
    monkeypatch.setitem(sys.modules, "__main__", main)

    def script() -> None: ...

    script.__module__, script.__qualname__ = "__main__", "script"
    task = app.task(name="script", executor="process")
    if module:
        assert task(script).address == Address(module, "script")
    else:
        with pytest.raises(ConfigurationError, match="a session or a script that nobody can import"):
            task(script)
