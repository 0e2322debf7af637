"""What operators ask: sizes of a queue, its age, its workers. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, cast

import msgspec

from streamq.broker import scripts
from streamq.broker.broker import Broker
from streamq.broker.connect import Address, Reply
from streamq.broker.values import Pause
from streamq.core.options import PRIORITIES

SCAN_COUNT: Final = 1_000  # more would hold up other clients


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
    lease: float = 0.0  # seconds, on which all workers of a queue agree; 0: an older release did not say
    libraries: str = ""  # streamq, redis-py, hiredis, msgspec and Python, with their versions


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """How much is where. `oldest` is the age in seconds of the oldest unfinished runnable job.

    `scheduled` are those that wait for a time, retries too. `paused` says since when nobody may take jobs, and why.
    """

    name: str
    queued: int
    running: int
    scheduled: int
    dead: int
    oldest: float
    workers: int
    by_priority: dict[int, int]
    paused: Pause | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which server it is, and its memory in bytes; `limit` 0: no maxmemory, or this user may not ask."""

    where: str
    name: str
    version: str
    used: int
    limit: int

    @property
    def full(self) -> bool:
        """Whether it refuses whatever needs memory: every new job."""
        return 0 < self.limit <= self.used


class Inspector:
    """Reads one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def queue(self, name: str) -> QueueInfo:
        """Sizes, age and number of workers of one queue."""
        k = self._broker.keys(name)
        call = scripts.sizes(streams=k.streams, due=k.due, dead=k.dead, paused=k.paused, now=self._broker.now())
        reply = cast("list[Reply]", await self._broker.ask(call))
        now, scheduled, dead = cast("tuple[int, int, int]", tuple(reply[:3]))
        since, reason = cast("tuple[int, bytes]", tuple(reply[3:5]))
        lengths = cast("list[int]", reply[5::3])
        held = cast("list[int]", reply[6::3])
        firsts = [int(first.split(b"-")[0]) for first in cast("list[bytes]", reply[7::3]) if first]
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
            Pause(since, reason.decode()) if since else None,
        )

    async def workers(self, queue: str) -> list[WorkerInfo]:
        """The workers that said within two leases that they live."""
        k = self._broker.keys(queue)
        now = self._broker.now_ms()
        alive = cast("list[bytes]", await self._broker.command("ZRANGE", k.workers, now, "+inf", "BYSCORE"))
        if not alive:
            return []
        infos = cast("list[bytes | None]", await self._broker.command("HMGET", k.worker_info, *alive))
        return [msgspec.msgpack.decode(info, type=WorkerInfo) for info in infos if info]

    async def keys(self) -> AsyncGenerator[list[str]]:
        """The names of all keys of the namespace, some at a time, each time of one queue. SCAN: not for hot paths."""
        namespace = self._broker.options.namespace
        for node in self._broker.servers():
            for pattern in (f"sq:{{{namespace}/*", f"sq:{{{namespace}}}*"):
                async for names in self._scan(node, pattern):
                    for _, some in groupby(sorted(names), key=lambda name: name.partition("}")[0]):
                        yield list(some)

    async def _scan(self, node: Address, pattern: str) -> AsyncGenerator[list[str]]:
        cursor = b"0"
        while True:
            reply = await self._broker.command("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, node=node)
            cursor, names = cast("tuple[bytes, list[bytes]]", reply)
            yield [name.decode() for name in names]
            if cursor == b"0":
                return

    async def servers(self) -> list[ServerInfo]:
        """Names, versions and memory of all servers that have keys."""
        return [await self._server(node) for node in self._broker.servers()]

    async def server(self, queue: str) -> ServerInfo:
        """The same of the one that has this queue."""
        return await self._server(self._broker.connections.home(self._broker.keys(queue).jobs))

    async def _server(self, node: Address) -> ServerInfo:
        facts = await self._broker.info("server", node) | await self._broker.info("memory", node)
        name = "Valkey" if "valkey_version" in facts else "Redis"
        version = facts.get("valkey_version") or facts.get("redis_version", "")
        where = self._broker.where if len(self._broker.servers()) == 1 else str(node)
        return ServerInfo(where, name, version, int(facts.get("used_memory", "0")), int(facts.get("maxmemory", "0")))
