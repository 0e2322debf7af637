"""What servers, queues and workers say of themselves, gathered once for `checkup`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Final, cast

from redis.exceptions import ResponseError

from streamq.broker.broker import Broker
from streamq.broker.connect import Address, Reply
from streamq.broker.inspector import Inspector, QueueInfo, WorkerInfo
from streamq.broker.line import Line
from streamq.broker.suitability import suitable
from streamq.core.options import PRIORITIES, AppOptions
from streamq.core.shown import size

PINGS: Final = 20
QUEUES: Final = 100  # looked at in detail
CONSUMERS: Final = 1_000
LIBRARIES: Final = ("streamq", "redis", "hiredis", "msgspec")


@dataclass(frozen=True, slots=True)
class Facts:
    """What one server, the queues and the workers say. An empty mapping: the ACL forbids the question."""

    address: Address
    options: AppOptions
    server: Mapping[str, str]
    memory: Mapping[str, str]
    persistence: Mapping[str, str]
    replication: Mapping[str, str]
    fsync: str  # of the AOF; empty: not told
    waitaof: bool
    user: str  # empty: not told
    skew: float  # seconds that the server is ahead of this machine
    pings: Sequence[float]  # ms
    queues: Sequence[QueueInfo]
    workers: Sequence[WorkerInfo]
    orphans: Mapping[str, int]  # consumer -> entries it holds, though no worker of that name lives
    libraries: str
    replaceable: bool = False  # Sentinels or a cluster put a replica in its place when it fails


def libraries() -> str:
    """The versions that matter when two releases meet: of streamq, redis-py, hiredis, msgspec and Python."""
    return ", ".join([*(f"{name} {_version(name)}" for name in LIBRARIES), f"Python {python_version()}"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


async def gather(broker: Broker) -> list[Facts]:
    """Ask every server; the broker is open. A question that its ACL forbids stays unanswered."""
    inspector = Inspector(broker)
    alive: dict[str, WorkerInfo] = {}
    held: Counter[str] = Counter()
    infos: list[QueueInfo] = []
    for name in (await broker.queues())[:QUEUES]:
        infos.append(await inspector.queue(name))
        alive |= {worker.id: worker for worker in await inspector.workers(name)}
        held += await _holders(broker, name)
    orphaned = {consumer: count for consumer, count in held.items() if consumer not in alive and consumer != "nobody"}

    async def of(node: Address) -> Facts:
        line = broker.line_to("commands", node)
        pings = await _pings(line)
        known = await suitable(line)
        wall = time.time() - time.monotonic()
        return Facts(
            node if broker.connections.nodes.may_move else broker.connections.address,
            broker.options,
            await broker.info("server", node),
            await broker.info("memory", node),
            await broker.info("persistence", node),
            await broker.info("replication", node),
            await _asked(line, "CONFIG", "GET", "appendfsync"),
            known.waitaof,
            await _asked(line, "ACL", "WHOAMI"),
            known.time_ms / 1000 - wall - (known.sent + known.received) / 2,
            pings,
            infos,
            list(alive.values()),
            orphaned,
            libraries(),
            broker.connections.nodes.may_move,
        )

    return [await broker.translated(of(node)) for node in broker.servers()]


async def _pings(line: Line) -> list[float]:
    pings: list[float] = []
    for _ in range(PINGS):
        sent = time.perf_counter()
        await line.call("PING")
        pings.append((time.perf_counter() - sent) * 1000)
    return pings


async def gather_memory(broker: Broker) -> str:
    """What the servers use, of what they may use, for people."""
    found = await Inspector(broker).servers()
    used, most = sum(each.used for each in found), sum(each.limit for each in found)
    return (size(used) if used else "") + (f" of {size(most)}" if all(each.limit for each in found) else "")


async def _holders(broker: Broker, queue: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for priority in PRIORITIES:
        stream = broker.keys(queue).stream(priority)
        try:
            reply = cast("list[Reply]", await broker.line("commands", stream).call("XPENDING", stream, "w"))
        except ResponseError:  # nobody was there yet
            continue
        for name, count in cast("list[list[bytes]]", reply[3] or [])[:CONSUMERS]:
            found[name.decode(errors="replace")] += int(count)
    return found


async def _asked(line: Line, *words: str) -> str:
    try:
        reply = await line.call(*words)
    except ResponseError:
        return ""
    last = reply[-1] if isinstance(reply, list) and reply else reply
    return last.decode(errors="replace") if isinstance(last, bytes) else ""
