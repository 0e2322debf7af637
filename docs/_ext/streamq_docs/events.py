"""The events that an application can listen to."""

from __future__ import annotations

from streamq.client.hooks import NAMES
from streamq_docs.markdown import code, plain, table


def reference() -> tuple[str, list[str]]:
    """Each name, and when it happens."""
    problems = [f"the event {name} is not described" for name, about in NAMES.items() if not about]
    return table(["event", "happens when"], [[code(name), plain(about)] for name, about in NAMES.items()]), problems
