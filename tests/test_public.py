"""The public face: its names, their documentation, and the tree of exceptions as it is drawn."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

import streamq
from streamq import errors

BRANCH = re.compile(r"^(?P<indent>[│ ]*)[├└]── (?P<name>\w+)\s+(?P<about>\S.*)$")
BUILTIN = re.compile(r"\((\w+)\)\s*(?:; `|$)")


def drawn(docstring: str) -> dict[str, tuple[str, str]]:
    """Name -> its parent and the builtin that it also is, as the tree shows them."""
    tree: dict[str, tuple[str, str]] = {}
    path = ["StreamQError"]
    margin = next((len(line) - len(line.lstrip()) for line in docstring.splitlines() if "── " in line), 0)
    for line in docstring.splitlines():
        if branch := BRANCH.match(line):
            depth = (len(branch["indent"]) - margin) // 4 + 1
            path[depth:] = [branch["name"]]
            builtin = BUILTIN.search(branch["about"])
            tree[branch["name"]] = (path[depth - 1], builtin[1] if builtin else "")
    return tree


def defined(module: ModuleType) -> dict[str, type[BaseException]]:
    return {
        name: each
        for name, each in vars(module).items()
        if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__ == module.__name__
    }


def raised(module: ModuleType) -> dict[str, tuple[str, str]]:
    """Name -> its parent and the builtin that it also is, as the classes are."""
    classes = defined(module)
    return {
        name: (
            next((base.__name__ for base in each.__bases__ if base.__name__ in classes), ""),
            next((base.__name__ for base in each.__bases__ if base.__name__ not in classes), ""),
        )
        for name, each in classes.items()
        if name != "StreamQError"
    }


def undocumented(face: object, names: list[str]) -> Iterator[str]:
    """Classes and functions without a docstring of their own, and their public methods without any."""
    for name in names:
        each = getattr(face, name)
        if inspect.isclass(each):
            # A dataclass without a docstring is given its signature as one.
            if not each.__doc__ or each.__doc__.startswith(f"{each.__name__}("):
                yield name
            for method, value in vars(each).items():
                plain = inspect.isroutine(value) or isinstance(value, property)
                if plain and not method.startswith("_") and not inspect.getdoc(getattr(each, method)):
                    yield f"{name}.{method}"
        elif inspect.isroutine(each) and not inspect.getdoc(each):
            yield name


def test_the_names_are_sorted_and_there() -> None:
    assert streamq.__all__ == sorted(set(streamq.__all__))
    assert [name for name in streamq.__all__ if not hasattr(streamq, name)] == []


def test_nothing_else_is_on_the_face() -> None:
    names = {name for name, each in vars(streamq).items() if not name.startswith("_") and not inspect.ismodule(each)}
    assert names - set(streamq.__all__) == {"annotations"} & names


def test_every_public_thing_is_documented() -> None:
    assert list(undocumented(streamq, list(streamq.__all__))) == []


def test_every_error_is_public() -> None:
    assert sorted(set(defined(errors)) - set(streamq.__all__)) == []


def test_every_error_is_drawn_under_its_parent() -> None:
    assert drawn(errors.__doc__ or "") == raised(errors)


TREE = """Errors.

::

    StreamQError
    ├── A            one (ValueError)
    │   └── B        two; (see there)
    └── C            three (LookupError); `.job_id`
        └── D        four
"""


def test_the_tree_is_read_as_it_is_drawn() -> None:
    assert drawn(TREE) == {
        "A": ("StreamQError", "ValueError"),
        "B": ("A", ""),
        "C": ("StreamQError", "LookupError"),
        "D": ("C", ""),
    }


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("│   └── JobExpired", "├── JobExpired    "),
        ("    ├── SoftTimeLimitExceeded       raised inside a task at its soft limit\n", ""),
        ("(LookupError)", ""),
        ("QueueFull ", "QueueFool "),
    ],
    ids=["another parent", "not drawn", "a builtin missing", "misspelt"],
)
def test_a_tree_that_differs_is_found(right: str, wrong: str) -> None:
    assert errors.__doc__
    assert right in errors.__doc__
    assert drawn(errors.__doc__.replace(right, wrong, 1)) != raised(errors)


def test_missing_documentation_is_found() -> None:
    class Documented:
        """Documented."""

        def method(self) -> None: ...

        @property
        def size(self) -> int:
            """The size."""
            return 1

    class Bare: ...

    def function() -> None: ...

    face = SimpleNamespace(Documented=Documented, Bare=Bare, function=function, version="1")
    assert list(undocumented(face, sorted(vars(face)))) == ["Bare", "Documented.method", "function"]
