"""The public names: signature and docstring of each, of its public methods, and of what they inherit."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import streamq
from streamq.errors import StreamQError
from streamq_docs.markdown import block, prose

GROUPS: Final = {
    "The application": "StreamQ Application AppSettings Router shared_task",
    "Tasks and calls": "Task TaskSettings CallSettings Signature Call Context current current_job_id Depends Secret",
    "Signals of a task": "Retry Snooze Reject",
    "Jobs": "Job JobInfo State Progress Cancellation Restart gather as_completed",
    "What happened to a job": "Explanation Timeline Step Transition TransitionKind",
    "Schedules": "Cron Every crontab Schedules ScheduleInfo Occurrence",
    "Seams": "Middleware Event PayloadCodec",
    "Operating": "Queue QueueInfo Pause WorkerInfo DeadLetters DeadLetter",
}
# Public for other floors of streamq, and of no use to a program.
INTERNAL: Final = frozenset({
    "add_schedule", "add_task", "adopt_schedule", "adopt_task", "broker", "build", "call", "follow", "included",
    "lifespan_context", "name_of",
})  # fmt: skip
MADE: Final = frozenset(
    {"Context", "DeadLetters", "Job", "Queue", "Schedules", "Signature", "Task"}
)  # by streamq alone
WIDEST: Final = 100
_ELSEWHERE: Final = re.compile(
    r"\b(?:streamq\.(?:\w+\.)+|collections\.abc\.|typing\.|datetime\.(?=datetime|timedelta))"
)
_ERROR: Final = re.compile(r"(?<!\[)`(\w+)`")


def reference() -> tuple[str, list[str]]:
    """Every name of `streamq.__all__`; the exceptions have a page of their own."""
    shown = {name for names in GROUPS.values() for name in names.split()}
    public = {name for name in streamq.__all__ if not _is_error(getattr(streamq, name))}
    problems = [f"streamq.{name} is in no group of docs/_ext/streamq_docs/api.py" for name in sorted(public - shown)]
    problems += [f"streamq.{name} is shown and not public" for name in sorted(shown - public)]
    parts: list[str] = []
    members: dict[object, str] = {}
    for heading, names in GROUPS.items():
        parts.append(f"## {heading}")
        for name in names.split():
            value: Any = getattr(streamq, name, None)
            parts += _of(name, value, members)
            if callable(value) and not inspect.getdoc(value):
                problems.append(f"streamq.{name} has no docstring")
    return _ERROR.sub(_linked, "\n\n".join(parts)), problems


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, StreamQError)


def _linked(found: re.Match[str]) -> str:
    name = found[1]
    known = name in streamq.__all__ and _is_error(getattr(streamq, name))
    return f"[`{name}`](errors.md#{name.lower()})" if known else found[0]


def _of(name: str, value: Any, shown: dict[object, str]) -> Iterator[str]:
    yield f"### {name}"
    if isinstance(value, type):
        yield from _class(name, value, shown)
    elif hasattr(value, "__metadata__"):  # of Annotated: its docstring would be that of typing
        yield "An annotation: `token: Secret[str]` is a `str`, and is shown as `***`: [Security](security.md)."
    elif callable(value):
        yield block(_signature(name, value), "text")
        yield prose(inspect.getdoc(value) or "")
    else:  # a context variable has no docstring: what it holds is said in the source, below its line
        yield "A `ContextVar`: the id of the job that runs here, for logs; `None` outside of one."


def _class(name: str, value: type[Any], shown: dict[object, str]) -> Iterator[str]:
    if hasattr(value, "__total__"):
        yield f"A `TypedDict`, for `**settings: Unpack[{name}]`; its keys: [Configuration](configuration.md)."
        return
    if issubclass(value, enum.Enum):
        yield prose(inspect.getdoc(value) or "")
        yield ", ".join(f"`{each.name}`" for each in value)
        return
    if name not in MADE:
        yield block(_signature(name, value), "text")
    yield prose(inspect.getdoc(value) or "")
    others: list[str] = []
    for method, member in _members(value):
        if member in shown:
            others.append(f"`{shown[member]}`")
        else:
            shown[member] = f"{name}.{method}"
            yield from _member(f"{name}.{method}", member)
    if others:
        yield f"And as above: {', '.join(others)}."


def _members(value: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that are written in streamq, also those of its bases."""
    seen: set[str] = set()
    for kind in value.__mro__:
        if not kind.__module__.startswith("streamq."):
            continue
        for name, member in vars(kind).items():
            if name.startswith("_") or name in seen or name in INTERNAL:
                continue
            seen.add(name)
            if isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member):
                yield name, member


def _member(path: str, member: Any) -> Iterator[str]:
    doc = inspect.getdoc(member) or ""
    if isinstance(member, property):
        yield f"`{path}`: {prose(doc)}"
        return
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    yield block(_signature(path, function), "text")
    yield prose(doc)


def _signature(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return name
    written = list(_written([each for each in signature.parameters.values() if each.name != "self"]))
    answer = _type(signature.return_annotation)
    arrow = f" -> {answer}" if answer and not isinstance(value, type) else ""
    start = "async " if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value) else ""
    line = f"{start}{name}({', '.join(written)}){arrow}"
    if len(line) <= WIDEST:
        return line
    rows = "".join(f"    {each},\n" for each in written)
    return f"{start}{name}(\n{rows}){arrow}"


def _written(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Each parameter, with the star before what must be given by name, and the slash after what must not."""
    starred = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    before: inspect.Parameter | None = None
    for each in parameters:
        if before is not None and before.kind is each.POSITIONAL_ONLY and each.kind is not each.POSITIONAL_ONLY:
            yield "/"
        if each.kind is each.KEYWORD_ONLY and not starred:
            yield "*"
            starred = True
        kind = _type(each.annotation)
        prefix = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(each.kind.name, "")
        default = "" if each.default is each.empty else f" = {each.default!r}" if kind else f"={each.default!r}"
        yield f"{prefix}{each.name}{f': {kind}' if kind else ''}{default}"
        before = each
    if before is not None and before.kind is before.POSITIONAL_ONLY:
        yield "/"


def _type(annotation: object) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return _ELSEWHERE.sub("", annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))
