"""Job ids: made by the client, ordered by time, never twice the same."""

from __future__ import annotations

import os
import random
import re
import threading
import time

from streamq.errors import InvalidArguments

_RANDOM_BITS = 62  # of the last 64; the two above them are the variant of RFC 9562
_VARIANT = 0b10 << _RANDOM_BITS
_END = 0b11 << _RANDOM_BITS
_STEP_BITS = 32
_FOLLOW_BACK_MS = 10_000
_ALLOWED_ID = re.compile(r"[!-~]{1,128}")
_GENERATED = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")

_lock = threading.Lock()
_bits = random.Random().getrandbits
_at = -1  # the millisecond that _head was made for
_head = ""  # the first 16 characters: time, version and 12 random bits
_tail = _END  # the rest as a number, which grows from id to id


def _forget_parent() -> None:
    # A fork copies the generator, and perhaps a lock that another thread held: the child would repeat
    # its parent's ids, or wait for ever.
    global _lock, _bits, _at, _tail
    _lock = threading.Lock()
    _bits = random.Random().getrandbits
    _at, _tail = -1, _END


os.register_at_fork(after_in_child=_forget_parent)


def new_id(now_ms: int | None = None) -> str:
    """A new job id: a UUIDv7 as 32 lower-case hexadecimal characters.

    Each id is greater than the one before it in this process, within one millisecond too, and when the
    clock steps back by up to ten seconds. A clock that steps back further is followed, else one wrong
    date would mark all later ids. `now_ms` is the time since the epoch in milliseconds (by default the
    local clock's), below 2**48. Ids are unique; they are no secrets.

        new_id()        # '0197c3f2a5d87b1e9c04d6a1f25b7e33'
    """
    global _at, _head, _tail
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    with _lock:
        tail = _tail + 1 + _bits(_STEP_BITS)
        if not 0 <= _at - now_ms <= _FOLLOW_BACK_MS:
            _at, _head, tail = now_ms, _head_of(now_ms), _VARIANT | _bits(_RANDOM_BITS - 1)
        elif tail >= _END:
            _at, _head, tail = _at + 1, _head_of(_at + 1), _VARIANT | _bits(_RANDOM_BITS - 1)
        _tail = tail
        return f"{_head}{tail:016x}"


def _head_of(now_ms: int) -> str:
    return f"{now_ms:012x}7{_bits(12):03x}"


def made_at(job_id: str) -> int | None:
    """When a generated id was made, in epoch ms; None of one that a user chose.

    >>> made_at("0197c3f2a5d87b1e9c04d6a1f25b7e33"), made_at("invoice-42")
    (1751339148760, None)
    """
    return int(job_id[:12], 16) if _GENERATED.fullmatch(job_id) else None


def check_job_id(value: str) -> str:
    """Return `value` if it can be a job's id, so that a user's own id is refused before it is written.

    Raises `InvalidArguments` unless it is 1 to 128 printable ASCII characters without whitespace.

        check_job_id("invoice-2025-0042")
    """
    if isinstance(value, str) and _ALLOWED_ID.fullmatch(value):  # pyright: ignore[reportUnnecessaryIsInstance]
        return value
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    raise InvalidArguments(
        f"job_id {shown} cannot be used: a job id is a str of 1 to 128 printable"
        " ASCII characters, without spaces or control characters, for example 'invoice-2025-0042'."
        " Leave job_id out to get a generated one."
    )
