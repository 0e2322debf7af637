"""Services as indentation: they live as long as the block, and one that crashes ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol, cast


class Runs(Protocol):
    """Anything with a `run`; if it has a `stop` too it is asked to end, else it is cancelled."""

    name: str

    async def run(self) -> None:
        """Live."""
        ...


@asynccontextmanager
async def alive(services: Iterable[Runs]) -> AsyncGenerator[None, None]:
    """Run the services while inside. Raises an exception group if one of them crashes."""
    async with asyncio.TaskGroup() as group:
        running = [(each, group.create_task(each.run(), name=f"streamq {each.name}")) for each in services]
        try:
            yield
        finally:
            for service, task in running:
                stop = getattr(service, "stop", None)
                if stop is None:
                    task.cancel()
                else:
                    stop()


def causes(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors in a group, those in groups within it too."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from causes(cast("BaseExceptionGroup[BaseException]", each))
        else:
            yield each
