"""`Secret[...]`: parameters whose values are shown to nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_type_hints

import msgspec

T = TypeVar("T")

HIDDEN: Final = "***"
_TEXT: Final = re.compile(r"\bSecret\[")


class Hides:
    """What stands in the annotation of a secret: `Annotated[str, Hides()]`."""

    def __repr__(self) -> str:
        return "Secret"


Secret = Annotated[T, Hides()]
"""A parameter that no log line, command or repr shows: `token: Secret[str]`. For type checkers it is a plain `str`."""


def hides(annotation: object) -> bool:
    """Whether a secret is in it, as deep as the fields of its classes. One that is a text is looked at as a text."""
    return any(
        isinstance(each, Hides) or (isinstance(each, str) and _TEXT.search(each)) for each in _inside(annotation, [])
    )


def _inside(annotation: Any, seen: list[object]) -> Iterator[object]:
    if any(each is annotation for each in seen):
        return
    seen.append(annotation)
    yield annotation
    for each in (*get_args(annotation), *getattr(annotation, "__metadata__", ()), *_fields(annotation)):
        yield from _inside(each, seen)


def _fields(kind: Any) -> Iterator[object]:
    if not isinstance(kind, type) or not _has_fields(cast("type[Any]", kind)):
        return
    try:
        yield from get_type_hints(kind, include_extras=True).values()
    except Exception:  # noqa: BLE001 - annotations are arbitrary expressions
        yield from getattr(kind, "__annotations__", {}).values()


def _has_fields(kind: type[Any]) -> bool:
    return is_dataclass(kind) or issubclass(kind, msgspec.Struct) or hasattr(kind, "model_fields")  # pydantic's
