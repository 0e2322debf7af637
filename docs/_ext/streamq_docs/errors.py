"""Every exception: where it stands in the tree, what it means, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import streamq
from streamq import errors
from streamq.cli.exits import ENDINGS, Exit
from streamq.errors import StreamQError
from streamq_docs.markdown import block, prose

ADVICE: Final = Path(__file__).parents[1] / "advice.md"
SIGNALS: Final = {
    "Retry": "End this attempt and run the job again later. It spends one of `max_retries`.",
    "Snooze": "Run the job again later, and spend nothing: no retry, no attempt.",
    "Reject": "Give up: FAILURE at once and a dead letter, whatever retries are left.",
}
_PARTS: Final = ("what", "where", "cause", "fix")  # which every error has
_BASES: Final = (errors.StreamQError, Exception, BaseException, object)


def tree(root: type[StreamQError] = StreamQError) -> list[type[StreamQError]]:
    """The exceptions of `streamq.errors` below one of them, itself first, in the order of their definition."""
    below = [each for each in root.__subclasses__() if each.__module__ == errors.__name__]
    return [root, *(found for each in below for found in tree(each))]


def _drawn(kind: type[StreamQError], depth: int = 0) -> Iterator[str]:
    yield "    " * depth + kind.__name__
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _drawn(each, depth + 1)


def _attributes(kind: type[StreamQError]) -> list[str]:
    """What it carries beside its message."""
    if "__init__" not in dir(kind) or kind.__init__ is Exception.__init__:
        return []
    names = list(inspect.signature(kind.__init__).parameters)
    return [name for name in names if name not in ("self", "message", "args", "kwargs", *_PARTS)]


def _exit_code(kind: type[StreamQError]) -> int:
    return next(int(ending.code) for known, ending in ENDINGS if issubclass(kind, known))


def _section(kind: type[StreamQError], advice: str) -> str:
    parents = [each for each in reversed(kind.__mro__) if issubclass(each, StreamQError)]
    path = " > ".join(f"[{each.__name__}](#{each.__name__.lower()})" for each in parents[:-1])
    builtin = [each.__name__ for each in kind.__mro__ if not issubclass(each, StreamQError) and each not in _BASES]
    facts = [
        f"In the tree: {path} > {kind.__name__}." if path else "The root of the tree.",
        f"It is a `{builtin[0]}` too." if builtin else "",
        f"It carries {' and '.join(f'`{name}`' for name in _attributes(kind))}." if _attributes(kind) else "",
        f"A command that ends with it exits with {_exit_code(kind)}." if _exit_code(kind) != Exit.FAILED else "",
    ]
    doc = prose(inspect.getdoc(kind) or "")
    return "\n\n".join([f"### {kind.__name__}", doc, "**What to do.** " + advice, " ".join(filter(None, facts))])


def advice_of(text: str) -> dict[str, str]:
    """Name of an error -> what to do, from the parts of a page."""
    parts = (part.partition("\n") for part in text.split("\n## ")[1:])
    return {name.strip(): about.strip() for name, _, about in parts}


def reference(page: str | None = None) -> tuple[str, list[str]]:
    """All of them. A problem is an error without advice, or advice for an error that is gone."""
    kinds, advice = tree(), advice_of(ADVICE.read_text(encoding="utf-8") if page is None else page)
    names = {kind.__name__ for kind in kinds}
    problems = [f"{name}: {ADVICE.name} does not say what to do" for name in names if not advice.get(name)]
    problems += [f"{name}: advice for an error that does not exist" for name in set(advice) - names]
    problems += [f"{name}: no such signal" for name in SIGNALS if not hasattr(streamq, name)]
    parts = ["## The tree", block("\n".join(_drawn(StreamQError)), "text"), "## Each of them"]
    parts += [_section(kind, advice.get(kind.__name__, "")) for kind in kinds]
    parts += ["## Signals", "Raised by a task to say what happens next. They are no errors, and no `StreamQError`."]
    parts += [f"### {name}\n\n{about}" for name, about in SIGNALS.items()]
    return "\n\n".join(parts), sorted(problems)
