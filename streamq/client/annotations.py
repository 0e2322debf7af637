"""The annotations of a function, as far as they can be resolved."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_origin, get_type_hints

from streamq.client.context import Context

_CONTEXT = re.compile(r"(?:\w+\.)*Context(?:\[.*\])?", re.DOTALL)


def annotations_of(fn: Callable[..., object]) -> dict[str, Any]:
    """Parameter name (and "return") -> type. One that cannot be resolved stays the text that it is.

    A name may be imported for the type checker only, or live in a function: that must not take the types
    of the other parameters away.
    """
    target = inspect.unwrap(fn)
    if isinstance(target, type):
        target = target.__dict__.get("__init__", object)
    elif not inspect.isroutine(target):
        target = getattr(target, "func", None) or type(target).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are arbitrary expressions
        return _one_by_one(target)


def _one_by_one(target: Any) -> dict[str, Any]:
    scope = getattr(target, "__globals__", {})
    found: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        single = SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(get_type_hints(single, globalns=scope, localns={}, include_extras=True))
        except Exception:  # noqa: BLE001 - as above, one by one
            found[name] = annotation
    return found


def is_context(annotation: object) -> bool:
    """Whether a parameter so annotated is filled in by the worker."""
    if isinstance(annotation, str):
        return _CONTEXT.fullmatch(annotation.strip()) is not None
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, Context)
