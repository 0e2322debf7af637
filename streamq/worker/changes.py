"""Watching the source of an application, for those who work on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

logger = logging.getLogger("streamq.supervisor")


async def changes(folders: Sequence[str]) -> AsyncGenerator[list[str]]:
    """The Python files below these folders that were written, as it happens. Needs `streamq[reload]`."""
    import watchfiles

    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    logger.info("watching the Python files below %s", ", ".join(folders))
    async for found in watchfiles.awatch(*folders, watch_filter=watchfiles.PythonFilter()):  # pyright: ignore[reportUnknownMemberType]
        yield sorted({Path(path).name for _, path in found})
