"""A queue as its owner asks about it."""

from __future__ import annotations

from streamq.broker.inspector import QueueInfo, WorkerInfo
from streamq.client.link import Link


class Queue:
    """One queue of the application.

    print((await app.queue("emails").info()).queued)
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self.name = name

    async def info(self) -> QueueInfo:
        """How many jobs wait, run, are delayed and are dead; the age of the oldest; how many workers."""
        return await (await self._link.inspector()).queue(self.name)

    async def workers(self) -> list[WorkerInfo]:
        """The live workers of this queue."""
        return await (await self._link.inspector()).workers(self.name)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"
