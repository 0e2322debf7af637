"""What operators ask: sizes of a queue, its age, its workers. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgspec

from streamq.broker import scripts
from streamq.broker.broker import Broker
from streamq.broker.connect import Reply
from streamq.core.options import PRIORITIES


class WorkerInfo(msgspec.Struct, omit_defaults=True):
    """What a live worker says of itself. Times are epoch ms."""

    id: str
    host: str
    pid: int
    version: str
    queues: list[str]
    concurrency: int
    tasks: list[str]
    started_at: int
    running: list[tuple[str, str, int]] = []  # job id, task, since when


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """How much is where. `oldest` is the age in seconds of the oldest unfinished runnable job."""

    name: str
    queued: int
    running: int
    scheduled: int
    dead: int
    oldest: float
    workers: int
    by_priority: dict[int, int]


class Inspector:
    """Reads one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def queue(self, name: str) -> QueueInfo:
        """Sizes, age and number of workers of one queue."""
        k = self._broker.keys(name)
        call = scripts.sizes(streams=k.streams, due=k.due, dead=k.dead, now=self._broker.now())
        reply = cast("list[Reply]", await self._broker.ask(call))
        now, scheduled, dead = cast("tuple[int, int, int]", tuple(reply[:3]))
        lengths = cast("list[int]", reply[3::3])
        held = cast("list[int]", reply[4::3])
        firsts = [int(first.split(b"-")[0]) for first in cast("list[bytes]", reply[5::3]) if first]
        waiting = {p: lengths[p] - held[p] for p in reversed(PRIORITIES) if lengths[p] - held[p]}
        return QueueInfo(
            name,
            sum(waiting.values()),
            sum(held),
            scheduled,
            dead,
            max(0.0, (now - min(firsts)) / 1000) if firsts else 0.0,
            len(await self.workers(name)),
            waiting,
        )

    async def workers(self, queue: str) -> list[WorkerInfo]:
        """The workers that said within two leases that they live."""
        k = self._broker.keys(queue)
        now = self._broker.now() or self._broker.clock.now_ms()
        alive = cast("list[bytes]", await self._broker.command("ZRANGE", k.workers, now, "+inf", "BYSCORE"))
        if not alive:
            return []
        infos = cast("list[bytes | None]", await self._broker.command("HMGET", k.worker_info, *alive))
        return [msgspec.msgpack.decode(info, type=WorkerInfo) for info in infos if info]
