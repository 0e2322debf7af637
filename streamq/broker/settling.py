"""Settlements as the turn script takes them: a short list each, and the bytes beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from streamq.broker import wire
from streamq.core.job import DeadLetter, Delivery, Reason, State
from streamq.core.limits import MAX_DEAD_BYTES
from streamq.core.outcome import RECORD_VERSION, Bury, Complete, Drop, Release, Reschedule, Settlement

_LETTERS = {State.RETRY: "t", State.SCHEDULED: "d", State.PENDING: "u"}


def pack(settlements: Sequence[tuple[Delivery, Settlement]]) -> tuple[bytes, list[bytes]]:
    """The batch and its blobs; empty bytes for no settlement."""
    if not settlements:
        return b"", []
    batch: list[int | str] = []  # flat, seven values a settlement: see turn.lua
    blobs: list[bytes] = []
    for delivery, settlement in settlements:
        kind, first, second = _told(delivery, settlement, blobs)
        batch += (delivery.priority, delivery.entry.decode(), delivery.count, delivery.job_id, kind, first, second)
    return msgspec.msgpack.encode(batch), blobs


def _told(delivery: Delivery, settlement: Settlement, blobs: list[bytes]) -> tuple[str, int | str, int]:
    match settlement:
        case Complete(record, ttl):
            blobs.append(wire.encode_record(record))
            return "f", record.state, ttl
        case Reschedule(job, delay, state):
            blobs.append(wire.encode_job(job))
            return "r", _LETTERS[state], delay
        case Bury(record, ttl, _, _):
            blobs.append(wire.encode_record(record))
            blobs.append(wire.encode_dead(_letter(delivery, settlement)))
            return "b", record.state, ttl
        case Release(forgive):
            return "l", int(forgive), 0
        case Drop():
            raise ValueError("a Drop is not sent: it says nothing")


def _letter(delivery: Delivery, bury: Bury) -> DeadLetter:
    record = bury.record
    body = delivery.body if bury.job is None else wire.encode_job(bury.job)
    return DeadLetter(
        RECORD_VERSION,
        delivery.job_id,
        record.task,
        bury.reason,
        f"{record.error.error}: {record.error.message}" if record.error else "",
        body[:MAX_DEAD_BYTES] if bury.reason is Reason.UNREADABLE else body,
        delivery.priority,
        record.finished_at,
        record.attempts,
        record.failures,
    )


def idempotency(task: str, key: str) -> str:
    """The name of an idempotency key: hashed, so that a long or secret key is neither kept nor shown."""
    return hashlib.blake2b(f"{task}\0{key}".encode(), digest_size=16).hexdigest()


def fingerprint(args: msgspec.Raw, kwargs: msgspec.Raw) -> str:
    """Of the arguments: the same key with another fingerprint is a mistake of the caller."""
    digest = hashlib.blake2b(bytes(args), digest_size=12)
    digest.update(b"\0" + bytes(kwargs))
    return digest.hexdigest()
