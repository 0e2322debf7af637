"""The jobs of one queue as they are now, place by place, in bounded pages. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import Final, cast

import msgspec

from streamq.broker import scripts, wire
from streamq.broker.broker import Broker, Found
from streamq.broker.connect import Reply
from streamq.broker.history import ENDED, History, TransitionKind
from streamq.broker.inspector import Inspector
from streamq.broker.letters import record_of
from streamq.broker.values import Where
from streamq.core.job import FINAL, Progress, Record, State
from streamq.core.options import PRIORITIES

PAGE: Final = 100  # jobs a round trip: each comes with its whole body
LETTERS: Final[dict[str, tuple[Where, State]]] = {
    "d": ("due", State.SCHEDULED),
    "t": ("retry", State.RETRY),
    "u": ("parked", State.PENDING),
}
WAITING: Final = frozenset(state for _, state in LETTERS.values())

Jobs = AsyncGenerator[Found, None]


class _Head(msgspec.Struct, array_like=True):
    """As much of a body as a filter wants to know."""

    version: int
    task: str


_head: Final = msgspec.msgpack.Decoder(_Head)


def task_of(found: Found) -> str:
    """The name of its task; empty if its body cannot be read."""
    if found.record is not None:
        return found.record.task
    try:
        return _head.decode(found.body or b"").task
    except Exception:  # noqa: BLE001 - whatever the bytes are, see wire.decode_job
        return ""


class Listing:
    """Reads one broker.

    async for found in Listing(broker).walk("emails", {State.QUEUED}): ...
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def walk(self, queue: str, states: Collection[State] = frozenset(State), task: str | None = None) -> Jobs:
        """The jobs in these states, each once, in the order of a job's life; `task` is a name or a pattern.

        Those that wait for their time by due time, then the queued ones as they will be taken, the running ones, and
        those that ended, the newest first: these as far as the queue's history and the records reach, and the dead
        letters. A job that moves on meanwhile is found where it was or where it is.
        """
        places = (
            (WAITING, self._delayed(queue, states)),
            ({State.QUEUED}, self._in_stream(queue, held=False)),
            ({State.STARTED}, self._running(queue)),
            (FINAL, self._finished(queue, states)),
            ({State.FAILURE}, self._dead(queue)),
        )
        seen: set[str] = set()
        for here, jobs in places:
            if here.isdisjoint(states):
                continue
            async with aclosing(jobs):
                async for found in jobs:
                    if found.job_id not in seen and (task is None or fnmatchcase(task_of(found), task)):
                        seen.add(found.job_id)
                        yield found

    # ---- the places ------------------------------------------------------------------------------------------

    async def _in_stream(self, queue: str, *, held: bool) -> Jobs:
        k = self._broker.keys(queue)
        priority, after = max(PRIORITIES), ""
        while priority >= 0:
            call = scripts.page(
                streams=k.streams, side=k.side, held=int(held), priority=priority, after=after, count=PAGE
            )
            reply = await self._broker.ask(call)
            priority, last, rows = cast("tuple[int, bytes, list[list[Reply]]]", tuple(cast("list[Reply]", reply)))
            after = last.decode()
            for row in rows:
                yield _of_row(queue, row, "running" if held else "stream")

    async def _running(self, queue: str) -> Jobs:
        held: set[str] = set()
        async for found in self._in_stream(queue, held=True):
            held.add(found.job_id)
            yield found
        # Acknowledged before they began: no entry is left, and their worker alone names them.
        workers = await Inspector(self._broker).workers(queue)
        early = [job_id for worker in workers for job_id, _, _ in worker.running if job_id not in held]
        async for found in self._recorded(queue, early, {State.STARTED}):
            yield found

    async def _delayed(self, queue: str, states: Collection[State]) -> Jobs:
        k = self._broker.keys(queue)
        letters = "".join(letter for letter, (_, state) in LETTERS.items() if state in states)
        last, score = b"", b"-inf"
        while True:
            call = scripts.delayed(
                jobs=k.jobs, due=k.due, body=k.body, side=k.side, last=last, score=score, count=PAGE, letters=letters
            )
            reply = cast("tuple[bytes, bytes, list[Reply]]", tuple(cast("list[Reply]", await self._broker.ask(call))))
            last, score, rows = reply
            if not last:
                return
            for row in cast("list[tuple[bytes, int, bytes, bytes, bytes | None]]", rows):
                job_id, due, place, body, note = row
                where, _ = LETTERS[place[:1].decode()]
                yield _found(queue, job_id.decode(), where, body=body, priority=int(place[1:]), due=due, progress=note)

    async def _finished(self, queue: str, states: Collection[State]) -> Jobs:
        wanted = FINAL.intersection(states)
        kinds = {TransitionKind.ACKNOWLEDGED, *(ENDED[state] for state in wanted)}
        seen: set[str] = set()
        page: list[str] = []
        async with aclosing(History(self._broker).backward(queue)) as transitions:
            async for each in transitions:
                if each.kind not in kinds or each.job_id in seen:
                    continue
                seen.add(each.job_id)
                page.append(each.job_id)
                if len(page) == PAGE:
                    async for found in self._recorded(queue, page, wanted):
                        yield found
                    page = []
        async for found in self._recorded(queue, page, wanted):
            yield found

    async def _recorded(self, queue: str, job_ids: Sequence[str], states: Collection[State]) -> Jobs:
        prefix = self._broker.keys(queue).records
        for first in range(0, len(job_ids), PAGE):
            ids = job_ids[first : first + PAGE]
            records = cast("list[bytes | None]", await self._broker.command("MGET", *[prefix + each for each in ids]))
            missing = [job_id for job_id, record in zip(ids, records, strict=True) if record is None]
            kept = dict(zip(missing, await self._broker.archived(queue, missing), strict=True))
            for job_id, record in zip(ids, records, strict=True):
                data = record or kept.get(job_id)
                ended = wire.decode_record(data) if data else None
                if ended is not None and ended.state in states:
                    yield _found(queue, job_id, "gone", record=ended, priority=ended.priority)

    async def _dead(self, queue: str) -> Jobs:
        offset = 0
        while letters := await self._broker.dead(queue, offset=offset, limit=PAGE):
            offset += len(letters)
            for letter in letters:
                record = record_of(letter, self._broker.options.max_payload)
                yield _found(queue, letter.job_id, "gone", record=record, priority=letter.priority)


def _of_row(queue: str, row: Sequence[Reply], where: Where) -> Found:
    priority, idle, count = cast("tuple[int, int, int]", (row[0], row[4], row[5]))
    job_id, body, consumer = cast("tuple[bytes, bytes, bytes]", (row[1], row[2], row[3]))
    progress, reason, forgiven = cast("list[bytes | None]", row[6:])
    found = _found(queue, job_id.decode(errors="replace"), where, body=body, priority=priority, progress=progress)
    found.consumer, found.delivery, found.idle, found.forgiven = consumer.decode(), count, idle, int(forgiven or 0)
    found.cancelling = None if reason is None else reason.decode()
    return found


def _found(
    queue: str,
    job_id: str,
    where: Where,
    *,
    record: Record | None = None,
    body: bytes | None = None,
    priority: int = 0,
    due: int = 0,
    progress: bytes | None = None,
) -> Found:
    said: Progress | None = wire.decode_progress(progress) if progress else None
    return Found(queue, job_id, where, record, body, priority, due, "", 0, 0, said, None, 0)
