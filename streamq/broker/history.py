"""What happened to the jobs of a queue: the scripts write an entry a turn into its stream `ev`, here they are read.

It is for people. Nothing decides anything by it, a full server may have refused some of it, and what is older than the
newest `events` transitions is gone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final, NamedTuple, cast

import msgspec
from msgspec import Raw, Struct
from redis.exceptions import RedisError

from streamq.broker.keys import queues
from streamq.broker.retrying import persist
from streamq.broker.session import Session
from streamq.core.job import State

PAGE: Final = 200  # entries a round trip; a turn of 500 settlements is an entry of some 40 KB
BLOCK_MS: Final = 5_000  # never 0: a half-open connection would be waited on for hours
_SLACK: Final = 5.0  # seconds a blocking read may be late before the connection counts as half-open
_LATEST: Final = 253_402_300_800_000  # ms: the year 10000, which no date can hold
_ID: Final = re.compile(rb"[!-~]{1,128}")
_SIZE: Final = 7  # values a settlement, see turn.lua

BEGINNING: Final = b"0-0"


class TransitionKind(StrEnum):
    """What can happen to a job."""

    STARTED = "started"  # a worker took it, for the first time since it became runnable
    TAKEN_OVER = "taken-over"  # a worker took it after another one had it
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good: a dead letter is kept
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ACKNOWLEDGED = "acknowledged"  # before it ran (acks_early): its end is in its record alone
    RETRYING = "retrying"  # the attempt failed, another one will come
    SNOOZED = "snoozed"
    PARKED = "parked"  # the worker does not know the task
    RELEASED = "released"  # the worker gave it back
    REFUSED = "refused"  # what became of an attempt was not recorded: the worker had lost its lease
    LATE = "late"  # nor this: the job had ended already
    DUE = "due"  # its time has come
    HASTENED = "hastened"  # its time is now, somebody said
    CANCELLING = "cancelling"  # its worker was told
    REVIVED = "revived"  # it was a dead letter


ENDS: Final = {
    TransitionKind.SUCCEEDED: State.SUCCESS,
    TransitionKind.FAILED: State.FAILURE,
    TransitionKind.CANCELLED: State.CANCELLED,
    TransitionKind.EXPIRED: State.EXPIRED,
}
ENDED: Final[dict[str, TransitionKind]] = {state: kind for kind, state in ENDS.items()}


class Transition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to one job. `at` is epoch ms of the server.

    `fence` is the delivery count under which it happened, 0 if nobody had the job. `seconds` is the delay of what was
    put off, and of a job that was taken over the lease that ran out; 0: it had been given back. `detail` is the reason
    of a cancellation, of what was refused or late the outcome that it would have had, of a release "forgiven" (this
    start does not count), "counted" or "unstarted".
    """

    at: int
    queue: str
    job_id: str
    kind: TransitionKind
    worker: str = ""
    fence: int = 0
    seconds: float = 0.0
    detail: str = ""


class Reach(NamedTuple):
    """How far back a history goes: epoch ms of the oldest entry (None: there is no entry), and whether there were
    older ones."""

    begins: int | None
    trimmed: bool


class History:
    """Reads the histories of one server.

    async for transition in History(broker).backward("emails"): ...
    """

    def __init__(self, broker: Session) -> None:
        self._broker = broker

    async def end(self, queue: str) -> bytes:
        """The place of the newest entry: `backward` reads up to it, a `Feed` from there on."""
        newest = await self._page(queue, b"+", 1)
        return newest[0][0] if newest else BEGINNING

    async def backward(
        self, queue: str, *, upto: bytes = b"+", since: int = 0, job_id: str = ""
    ) -> AsyncGenerator[Transition, None]:
        """Transitions, the newest first: of one job if it is named, not older than `since` (epoch ms)."""
        named = job_id.encode()
        while page := await self._page(queue, upto, PAGE):
            for _, fields in page:
                if named and not any(named in value for value in fields):
                    continue
                for transition in reversed(decode(queue, fields)):
                    if transition.at < since:
                        return
                    if not job_id or transition.job_id == job_id:
                        yield transition
            upto = b"(" + page[-1][0]

    async def of_job(self, queue: str, job_id: str) -> list[Transition]:
        """All that is kept of one job, the oldest first."""
        found = [transition async for transition in self.backward(queue, job_id=job_id)]
        return found[::-1]

    async def reach(self, queue: str) -> Reach:
        """How far back the history of a queue goes."""
        reply = await self._broker.command("XRANGE", self._broker.keys(queue).ev, "-", "+", "COUNT", 1)
        for entry, fields in cast("list[tuple[bytes, list[bytes]]]", reply):
            first = decode(queue, fields)
            if first:  # the ids count transitions, from the microsecond of the first: see note.lua
                at = first[0].at
                return Reach(at, int(entry.partition(b"-")[0]) - len(first) != at * 1000)
        return Reach(None, False)

    async def _page(self, queue: str, upto: bytes, count: int) -> list[tuple[bytes, list[bytes]]]:
        reply = await self._broker.command("XREVRANGE", self._broker.keys(queue).ev, upto, "-", "COUNT", count)
        return cast("list[tuple[bytes, list[bytes]]]", reply)


class Feed:
    """What happens from now on, in several queues, over connections of its own. `after` are the places to begin at.

    With `everywhere` queues that are new join in within five seconds.

        feed = Feed(broker, {"emails": await history.end("emails")})
        async for transitions in feed.follow(): ...
    """

    def __init__(self, broker: Session, after: Mapping[str, bytes], *, everywhere: bool = False) -> None:
        self._broker = broker
        self._after = dict(after)
        self._everywhere = everywhere
        self._purpose = f"feed {id(self)}"
        self._reads: dict[tuple[str, ...], asyncio.Task[list[Transition]]] = {}  # by the queues that one command reads

    async def follow(
        self, on_failure: Callable[[BaseException, float], None] | None = None
    ) -> AsyncGenerator[list[Transition], None]:
        """What happened, as it comes; an empty list whenever nothing did for 5 seconds.

        While Redis is away it goes on trying, and says so to `on_failure(error, seconds to the next try)`; as soon as
        it is back there is a list, perhaps an empty one. Raises `BrokerError` for what will not pass.
        """
        failed = False

        def note(error: BaseException, wait: float) -> None:
            nonlocal failed
            failed = True
            if on_failure is not None:
                on_failure(error, wait)

        async def read() -> list[Transition]:
            return await self._read(1 if failed else BLOCK_MS)

        while True:
            try:
                found = await persist(read, None, on_failure=note)
            except (RedisError, OSError) as error:
                raise self._broker.translate(error) from error
            failed = False
            yield found

    async def aclose(self) -> None:
        """Close the connections."""
        for read in self._reads.values():
            read.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        for queues_read in self._reads:
            await self._broker.hang_up(self._line_of(queues_read))
        self._reads.clear()
        await self._broker.hang_up(self._purpose)

    def _line_of(self, names: tuple[str, ...]) -> str:
        return f"{self._purpose} {' '.join(names)}"

    async def _read(self, block_ms: int) -> list[Transition]:
        if not self._after:
            await asyncio.sleep(block_ms / 1000)
        found: list[Transition] = []
        for names in self._broker.connections.nodes.together(list(self._after)):
            if names not in self._reads:
                self._reads[names] = asyncio.create_task(self._some(names, block_ms))
        if self._reads:
            # Those that are not done go on: a blocking read that is given up would have to close its connection.
            done, _ = await asyncio.wait(self._reads.values(), return_when=asyncio.FIRST_COMPLETED)
            for names in [names for names, read in self._reads.items() if read in done]:
                found += await self._reads.pop(names)
        if self._everywhere and not found:
            known = await self._broker.line(self._purpose).call("HGETALL", queues(self._broker.options.namespace))
            for name in cast("list[bytes]", known)[::2]:
                self._after.setdefault(name.decode(), BEGINNING)
        return sorted(found, key=lambda transition: transition.at)

    async def _some(self, names: tuple[str, ...], block_ms: int) -> list[Transition]:
        streams = {self._broker.keys(queue).ev.encode(): queue for queue in names}
        reply = await self._broker.line(self._line_of(names), next(iter(streams))).call(
            "XREAD", "COUNT", PAGE, "BLOCK", block_ms, "STREAMS", *streams, *[self._after[queue] for queue in names],
            timeout=block_ms / 1000 + _SLACK,
        )  # fmt: skip
        found: list[Transition] = []
        for name, entries in cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", reply or []):
            queue = streams[name]
            for entry, fields in entries:
                self._after[queue] = entry
                found += decode(queue, fields)
        return found


# ---- the format ---------------------------------------------------------------------------------------------


def decode(queue: str, fields: Sequence[bytes]) -> list[Transition]:
    """What one entry tells, in the order in which it happened. Whatever cannot be read is left out: never raises."""
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        at, worker = int(found.get(b"a", b"")), found.get(b"w", b"").decode()
    except ValueError:
        return []
    if not 0 <= at < _LATEST:
        return []
    told = (
        *_started(found.get(b"h", b"")),
        *_settled(found.get(b"s", b""), found.get(b"c", b"")),
        *_noted(found.get(b"b", b"")),
        *_started(found.get(b"f", b"")),
    )
    return [
        Transition(
            at=at, queue=queue, job_id=job_id, kind=kind, worker=worker, fence=fence, seconds=seconds, detail=detail
        )
        for job_id, kind, fence, seconds, detail in told
    ]


_Told = tuple[str, TransitionKind, int, float, str]

_RECORDED: Final = {**ENDED, State.STARTED: TransitionKind.ACKNOWLEDGED}
_AGAIN: Final[dict[str, TransitionKind]] = {
    "t": TransitionKind.RETRYING,
    "d": TransitionKind.SNOOZED,
    "u": TransitionKind.PARKED,
}
_NOTES: Final[dict[str, TransitionKind]] = {
    "due": TransitionKind.DUE,
    "hastened": TransitionKind.HASTENED,
    "cancelling": TransitionKind.CANCELLING,
    "cancelled": TransitionKind.CANCELLED,
    "revived": TransitionKind.REVIVED,
}
_DENIED: Final = {"f": TransitionKind.REFUSED, "g": TransitionKind.LATE}


def _started(ids: bytes) -> Iterator[_Told]:
    for job_id in ids.split():
        if _ID.fullmatch(job_id):
            yield job_id.decode(), TransitionKind.STARTED, 1, 0.0, ""


def _settled(batch: bytes, letters: bytes) -> Iterator[_Told]:
    values = _values(batch)
    for first, letter in zip(range(0, len(values), _SIZE), letters.decode(errors="replace"), strict=False):
        match values[first : first + _SIZE]:
            case [_, _, int(fence), str(job_id), kind, one, int(two)]:
                meant = _meant(kind, one, two)
            case _:
                continue
        if meant is None:
            continue
        if letter == "o":
            yield job_id, meant[0], fence, *meant[1:]
        elif letter in _DENIED:
            yield job_id, _DENIED[letter], fence, 0.0, meant[0].value


def _meant(kind: object, first: object, second: int) -> tuple[TransitionKind, float, str] | None:
    """What a settlement would do: see `settling.pack`."""
    match kind, first:
        case "f" | "b", str() if first in _RECORDED:
            return _RECORDED[first], 0.0, ""
        case "r", str() if first in _AGAIN:
            return _AGAIN[first], second / 1000, ""
        case "l", int():
            return TransitionKind.RELEASED, 0.0, "forgiven" if first == 1 else "counted"
        case _:
            return None


def _noted(notes: bytes) -> Iterator[_Told]:
    values = _values(notes)
    for first in range(0, len(values), 4):
        match values[first : first + 4]:
            case ["claimed", str(job_id), int(fence), str(lease)]:
                lost = int(lease) / 1000 if lease.isdecimal() and len(lease) < 16 else 0.0
                yield job_id, TransitionKind.TAKEN_OVER, fence, lost, ""
            case ["released", str(job_id), int(fence), _] if job_id:
                yield job_id, TransitionKind.RELEASED, fence, 0.0, "unstarted"
            case [str(kind), str(job_id), int(fence), str(detail)] if kind in _NOTES and job_id:
                yield job_id, _NOTES[kind], fence, 0.0, detail
            case _:
                pass


def _values(data: bytes) -> list[object]:
    """A msgpack array; what in it is no text, a foreign entry's id for one, is None."""
    if not data:
        return []
    with suppress(Exception):  # msgspec can raise RecursionError and UnicodeDecodeError too
        return msgspec.msgpack.decode(data, type=list[object])
    with suppress(Exception):
        return [_value(raw) for raw in msgspec.msgpack.decode(data, type=list[Raw])]
    return []


def _value(raw: Raw) -> object:
    with suppress(Exception):
        return cast(object, msgspec.msgpack.decode(raw))
    return None
