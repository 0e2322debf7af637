"""What Redis says at the end of a trial: records, history, what is left; and taking all of it away again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar, cast

from streamq.broker import wire
from streamq.broker.broker import Broker
from streamq.broker.history import ENDS, History, TransitionKind
from streamq.broker.inspector import Inspector
from streamq.broker.keys import PERMANENT, Keys
from streamq.cli.trial.judge import Evidence
from streamq.cli.trial.ledger import Entry
from streamq.core.options import PRIORITIES

T = TypeVar("T")

BATCH: Final = 500
UNTIL_SETTLED: Final = ("jobs", "side", "due", "body", "k:")  # keys without an end while jobs are unfinished
ANOTHER_ENTRY: Final = frozenset({TransitionKind.RETRYING, TransitionKind.SNOOZED, TransitionKind.REVIVED})
GIVEN_BACK: Final = ANOTHER_ENTRY | {TransitionKind.RELEASED}


async def collect(broker: Broker, queue: str, entries: Sequence[Entry]) -> Evidence:
    """The records and the history of one queue, beside the books. Raises `BrokerError`."""
    seen, k = Evidence(list(entries)), broker.keys(queue)
    await _told(broker, queue, seen)
    known = {entry.job_id for entry in entries} | set(seen.ends)
    known.discard("-")
    for ids in _some(sorted(known)):
        for job_id, data in zip(ids, await _records(broker, [k.records + each for each in ids]), strict=True):
            if data is not None:
                record = wire.decode_record(data)
                seen.states[job_id], seen.retries[job_id] = record.state, record.retries
                if record.error is not None:
                    seen.reasons[job_id] = record.reason
    seen.unfinished = {name.decode() for name in cast("list[bytes]", await broker.command("HKEYS", k.jobs))}
    if not seen.unfinished:
        seen.left = [each async for each in left_behind(broker, queue)]
    return seen


async def _told(broker: Broker, queue: str, seen: Evidence) -> None:
    fences: dict[str, int] = {}  # under which delivery it ended, of the entry that is being read
    async for transition in History(broker).backward(queue):
        job_id, kind = transition.job_id, transition.kind
        if kind in ENDS:
            fences[job_id] = transition.fence
        elif kind in ANOTHER_ENTRY:
            fences.pop(job_id, None)
        elif kind is TransitionKind.TAKEN_OVER and transition.fence > fences.get(job_id, transition.fence):
            seen.stale.append(job_id)
        seen.ends[job_id] += kind in ENDS
        # A suspect that had to wait for its turn was nobody's meanwhile: not every lost lease is called so.
        seen.lost[job_id] += (kind is TransitionKind.TAKEN_OVER) - (kind is TransitionKind.RELEASED)
        seen.returned[job_id] += kind in GIVEN_BACK


async def left_behind(broker: Broker, queue: str) -> AsyncGenerator[str]:
    """Entries, notes and keys without an end, of a queue in which nothing is unfinished."""
    k = broker.keys(queue)
    for name in (k.jobs, k.side, k.due, k.body):
        if await broker.command("EXISTS", name):
            yield name
    for stream in map(k.stream, PRIORITIES):
        if not await broker.command("EXISTS", stream):
            continue
        entries = cast(int, await broker.command("XLEN", stream))
        pending, *_ = cast("list[int]", await broker.command("XPENDING", stream, "w"))
        if entries or pending:
            yield f"{stream}: {entries} entries, {pending} pending"
    async for names in Inspector(broker).keys():
        ends = await asyncio.gather(*(broker.command("PTTL", name) for name in names))
        for name in (name for name, end in zip(names, ends, strict=True) if end == -1 and not stays(name)):
            yield f"{name}: no end"


def stays(name: str, unfinished: bool = False) -> bool:
    """Whether a key may be there without a TTL."""
    short = name.rpartition("}:")[2]
    if unfinished and short.startswith(UNTIL_SETTLED):
        return True
    return any(short == each or (each.endswith(":") and short.startswith(each)) for each in PERMANENT)


async def consumers(broker: Broker, queue: str) -> set[str]:
    """The consumers of every stream of a queue, once those of dead workers were removed."""
    await broker.tidy(queue)
    found: set[str] = set()
    for stream in map(Keys(broker.options.namespace, queue).stream, PRIORITIES):
        node = broker.connections.home(stream)
        reply = await broker.command("XINFO", "CONSUMERS", stream, "w", node=node)
        for each in cast("list[list[bytes]]", reply):
            found.add(each[each.index(b"name") + 1].decode())
    return found


async def sweep(broker: Broker) -> None:
    """Delete every key of the namespace. Raises `BrokerError`."""
    async for names in Inspector(broker).keys():
        await broker.command("UNLINK", *names)


async def forget(broker: Broker, queue: str, job_ids: Iterable[str]) -> None:
    """Delete what is kept of jobs that were judged: records, history, dead letters."""
    k = broker.keys(queue)
    await broker.command("UNLINK", k.ev, k.dead, k.dead_body)
    for ids in _some(job_ids):
        await broker.command("UNLINK", *(k.records + job_id for job_id in ids))


async def _records(broker: Broker, names: Sequence[str]) -> list[bytes | None]:
    return cast("list[bytes | None]", await broker.command("MGET", *names))


def _some(names: Iterable[T]) -> Iterator[list[T]]:
    source = iter(names)
    while found := list(islice(source, BATCH)):
        yield found
