"""Jobs, settlements and workers by hand: every step of a test is a call, nothing runs by itself."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import redis

from streamq.broker import scripts, wire
from streamq.broker.broker import Broker, NewJob, Turn
from streamq.core.ids import new_id
from streamq.core.job import Delivery, Failure, JobBody, Reason, Record, State
from streamq.core.outcome import NIL, Bury, Complete, Release, Reschedule, Settlement

QUEUE = "q"
NOW = 1_750_000_000_000
LEASE = 30_000
ERROR = Failure("builtins.ValueError", "no", "Traceback: line 7", NOW, 1, "w1")


def body(task: str = "task", *args: object) -> JobBody:
    return JobBody(1, task, wire.encode_value(list(args)), NOW)


def job(
    job_id: str = "", *args: object, priority: int = 0, due: int = 0, delay: int = 0, own_id: bool = False,
    key: str = "", fingerprint: str = "", retry_failed: bool = False,
) -> NewJob:  # fmt: skip
    encoded = wire.encode_job(body("task", *args))
    return NewJob(job_id or new_id(), encoded, priority, due, delay, own_id, key, fingerprint, retry_failed)


def record(state: State = State.SUCCESS, *, task: str = "task") -> Record:
    error = ERROR if state is State.FAILURE else None
    failures = [error] if error else []
    return Record(1, state, task, NIL, error, "", NOW, NOW + 1, NOW + 2, "w1", 1, 0, failures)


def done(state: State = State.SUCCESS, ttl: int = 60_000) -> Complete:
    return Complete(record(state), ttl)


def buried(delivery: Delivery, reason: Reason = Reason.FAILED, ttl: int = 60_000) -> Bury:
    whole = None if reason is Reason.UNREADABLE else wire.decode_job(delivery.body, 1 << 20)
    return Bury(record(State.FAILURE), ttl, reason, whole)


def again(delivery: Delivery, delay: int = 0, state: State = State.RETRY) -> Reschedule:
    return Reschedule(wire.decode_job(delivery.body, 1 << 20), delay, state)


class Worker:
    """One consumer; what it was handed out stays in `held` until it was settled."""

    def __init__(self, broker: Broker, name: str, queue: str = QUEUE) -> None:
        self.broker = broker
        self.name = name
        self.queue = queue
        self.held: list[Delivery] = []
        self.requests = itertools.count(1)
        self.request = 0

    async def turn(
        self, pairs: Sequence[tuple[Delivery, Settlement]] = (), want: int = 0, *, request: int | None = None
    ) -> Turn:
        self.request = next(self.requests) if request is None else request
        turn = await self.broker.turn(self.queue, self.name, pairs, want, request=self.request)
        settled = {id(delivery) for delivery, _ in pairs}
        self.held = [each for each in self.held if id(each) not in settled] + turn.deliveries
        return turn

    async def take(self, want: int = 10) -> list[Delivery]:
        return (await self.turn(want=want)).deliveries

    async def one(self) -> Delivery:
        (delivery,) = await self.take(1)
        return delivery

    async def settle(self, delivery: Delivery, settlement: Settlement) -> str:
        (reply,) = (await self.turn([(delivery, settlement)])).replies
        return reply

    async def sweep(self, want: int = 10, suspects: int = 10) -> list[Delivery]:
        taken, _ = await self.broker.reclaim(self.queue, self.name, lease_ms=LEASE, want=want, suspects=suspects)
        self.held += taken
        return taken

    async def release(self, delivery: Delivery, *, forgive: bool = True) -> str:
        return await self.settle(delivery, Release(forgive))


class Server:
    """A client of its own that looks, and lets time pass for leases, behind the back of the broker."""

    def __init__(self, client: redis.Redis, broker: Broker, queue: str = QUEUE) -> None:
        self.client = client
        self.keys = broker.keys(queue)

    def expire(self, delivery: Delivery) -> None:
        """The lease of one entry has run out, whoever holds it."""
        stream = self.keys.stream(delivery.priority)
        held = self.client.xpending_range(stream, "w", delivery.entry, delivery.entry, 1)
        if held:
            owner = held[0]["consumer"]
            self.client.xclaim(stream, "w", owner, 0, [delivery.entry], idle=LEASE + 1000, justid=True)

    def lengths(self) -> int:
        return sum(int(self.client.xlen(self.keys.stream(priority))) for priority in range(10))

    def unfinished(self) -> dict[str, bytes]:
        found = self.client.hgetall(self.keys.jobs)
        return {name.decode(): place for name, place in found.items()}

    def record(self, job_id: str) -> Record | None:
        data = self.client.get(self.keys.records + job_id)
        return None if data is None else wire.decode_record(data)

    def assert_clean(self) -> None:
        """Nothing is left of any unfinished job."""
        assert self.lengths() == 0
        for key in (self.keys.jobs, self.keys.side, self.keys.due, self.keys.body):
            assert not self.client.exists(key), key


def variant(name: str, *cuts: tuple[str, str]) -> scripts.Script:
    """The script with a guard cut out; each text that is replaced must be there exactly once."""
    script = scripts.SCRIPTS[name]
    text = script.text
    for old, new in cuts:
        assert text.count(old) == 1, (name, old)
        text = text.replace(old, new)
    return replace(script, text=text, sha=hashlib.sha1(text.encode()).hexdigest())
