"""The settings as tables: from the TypedDicts that say what is accepted, and the options that hold the defaults."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamq.client.call import CallSettings
from streamq.client.settings import AppSettings, RetrySettings, TaskSettings
from streamq.core.options import AppOptions, TaskOptions
from streamq.core.retry import RetryPolicy
from streamq.worker.app import StreamQ
from streamq_docs import commands
from streamq_docs.markdown import code, duration, plain, table

Written = tuple[str, list[str]]  # Markdown, and what is wrong

_NAME: Final = r"\w+(?: \(\w+\))?"
_LINE: Final = re.compile(rf"^({_NAME}(?:, {_NAME})*): (.+)$")
_DEFAULT: Final = re.compile(r" \(([^()]+)\)$")
_POLICY: Final = {
    "default_retry_delay": "default_delay",
    "retry_backoff": "backoff",
    "retry_backoff_max": "backoff_max",
    "retry_jitter": "jitter",
    "retry_delays": "delays",
}
_LISTS: Final = (tuple, dict)


@dataclass(frozen=True)
class Line:
    """One line of a docstring: names (with what else they may be called) that share a meaning."""

    names: dict[str, str]
    about: str


def described(kind: type[Any]) -> list[Line]:
    """The lines `name, other (alias): meaning` of a docstring; what is indented belongs to the line above."""
    lines: list[Line] = []
    for text in inspect.cleandoc(kind.__doc__ or "").splitlines()[1:]:
        if text.startswith(" ") and lines:
            lines[-1] = Line(lines[-1].names, f"{lines[-1].about} {text.strip()}")
        elif found := _LINE.match(text):
            each = [name.partition(" (") for name in found[1].split(", ")]
            lines.append(Line({name: alias.rstrip(")") for name, _, alias in each}, found[2]))
    return lines


def types_of(kind: type[Any]) -> dict[str, str]:
    """Name -> type as it is written, of the class itself and not of what it inherits."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        each.target.id: ast.unparse(each.annotation)
        for each in tree.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def _shown(value: object, kind: str) -> str:
    """A default in the words of somebody who would set it."""
    match value:
        case None | "":
            return ""
        case bool():
            return str(value)
        case int() | float() if "Duration" in kind:
            return duration(value)
        case int() if value and value % 1_048_576 == 0:
            return f"{value // 1_048_576} MiB"
        case int():
            return f"{value:,}"
        case _ if isinstance(value, _LISTS):
            return ",".join(map(str, value))
        case _:
            return str(value)


def _seconds(name: str, value: object) -> object:
    return value / 1000 if name == "result_ttl" and isinstance(value, int) else value  # options hold milliseconds


def _table(kind: type[Any], defaults: Mapping[str, object] | None, variables: frozenset[str]) -> Written:
    types, lines = types_of(kind), described(kind)
    known = {name for line in lines for each in line.names.items() for name in each if name}
    problems = [f"{kind.__name__}.{name} has no description in the docstring" for name in types if name not in known]
    problems += [f"{kind.__name__}: {name!r} is described and does not exist" for name in sorted(known - set(types))]
    rows: list[list[str]] = []
    for line in lines:
        names = [name for name in line.names if name in types]
        shown = {name: _shown(_seconds(name, (defaults or {}).get(name)), types[name]) for name in names}
        about, said = line.about, _DEFAULT.search(line.about)
        if said and defaults is not None:
            about = about[: said.start()]
            if {said[1].strip('"')} != set(shown.values()):
                wrong = f"its docstring says {said[1]}, the code {shown}"
                problems.append(f"{kind.__name__}.{', '.join(names)}: {wrong}")
        row = [
            ", ".join(code(name) + (f" ({code(line.names[name])})" if line.names[name] else "") for name in names),
            ", ".join(dict.fromkeys(code(types[name]) for name in names)),
            plain(about),
        ]
        if defaults is not None:
            row.insert(2, ", ".join(dict.fromkeys(filter(None, shown.values()))))
        if variables:
            row.insert(3, ", ".join(code(f"STREAMQ_{name.upper()}") for name in names if name in variables))
        rows.append(row)
    heads = ["name", "type", *(["default"] if defaults is not None else []), *(["variable"] if variables else [])]
    return table([*heads, "meaning"], rows), problems


def _fields(options: object) -> dict[str, object]:
    return {name: getattr(options, name) for name in type(options).__dataclass_fields__}  # type: ignore[attr-defined]


def of_applications() -> Written:
    """What `StreamQ(...)` takes."""
    options = _fields(AppOptions())
    return _table(AppSettings, options, frozenset(options))


def of_retries() -> Written:
    """The retry settings of an application or a task."""
    policy = RetryPolicy()
    defaults = {name: getattr(policy, _POLICY.get(name, name), None) for name in types_of(RetrySettings)}
    return _table(RetrySettings, defaults, frozenset())


def of_tasks() -> Written:
    """What `@app.task(...)` takes beside the retry settings."""
    app = _fields(AppOptions())
    defaults = {
        name: "the application's" if value is None and name in app else value
        for name, value in _fields(TaskOptions()).items()
    }
    return _table(TaskSettings, {**defaults, "queue": "by its route, else default"}, frozenset())


def of_calls() -> Written:
    """What `using(...)` takes."""
    return _table(CallSettings, None, frozenset())


def of_workers() -> Written:
    """The options of `streamq worker`, and which of them `app.worker(...)` has too."""
    found = commands.find("worker")
    if isinstance(found, commands.Missing):
        return "", [str(found)]
    here = inspect.signature(StreamQ.worker).parameters
    rows: list[list[str]] = []
    problems: list[str] = []
    for option in commands.options(found):
        if not option.about:
            problems.append(f"streamq worker {option.names[-1]} has no help text")
        python = code(option.parameter) if option.parameter in here else ""
        rows.append([option.shown, option.default, code(option.variable), python, option.about])
    return table(["option", "default", "variable", "in `app.worker`", "meaning"], rows), problems
