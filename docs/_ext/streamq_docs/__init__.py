"""The part of the documentation that is written by the code: settings, commands, errors, the public names.

A page holds `<!-- generated: commands -->` where its part belongs; it is filled in when the page is read. What the
generators find missing is a warning of the build, and `-W` makes it an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from streamq_docs import api, commands, errors, events, settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLACE: Final = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)
OUTSIDE: Final = re.compile(r"\]\((?=\.\./)")

GENERATORS: Final[dict[str, Callable[[], tuple[str, list[str]]]]] = {
    "app-settings": settings.of_applications,
    "retry-settings": settings.of_retries,
    "task-settings": settings.of_tasks,
    "call-settings": settings.of_calls,
    "worker-settings": settings.of_workers,
    "commands": commands.reference,
    "errors": errors.reference,
    "events": events.reference,
    "api": api.reference,
}


@dataclass
class Filled:
    """A page with its generated parts, and what is wrong with them."""

    text: str
    problems: list[str] = field(default_factory=list[str])


def filled(text: str) -> Filled:
    """The Markdown of a page, complete."""
    page = Filled(text)

    def part(found: re.Match[str]) -> str:
        if found[1] not in GENERATORS:
            page.problems.append(f"nothing generates {found[1]!r}; there are {', '.join(GENERATORS)}")
            return ""
        written, problems = GENERATORS[found[1]]()
        page.problems += problems
        return written

    page.text = PLACE.sub(part, text)
    return page


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    from sphinx.util import logging

    page = filled(source[0])
    for problem in page.problems:
        logging.getLogger(__name__).warning("%s", problem, location=docname)
    # Files of the repository are no pages: they are taken along as they are.
    source[0] = OUTSIDE.sub("](path:", page.text)


def _generated(app: Sphinx, *_: object) -> list[str]:
    """Pages that depend on the code are read again at every build."""
    return [name for name in app.env.found_docs if PLACE.search(app.env.doc2path(name).read_text(encoding="utf-8"))]


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("source-read", _fill)
    app.connect("env-get-outdated", _generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
