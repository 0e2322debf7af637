"""The bytes: golden files that decode for ever, and whatever is no job is `Unreadable`, nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.broker import wire
from streamq.core.job import DeadLetter, Failure, JobBody, JobOptions, Progress, Reason, Record, State
from streamq.core.outcome import NIL

GOLDEN = Path(__file__).parent / "golden"
LIMIT = 1 << 20
AT = 1_750_000_000_000
FAILURE = Failure("app.Refused", "no \N{SNOWMAN}", "Traceback:\n  line 7", AT + 2_000, 2, "host-1-a")
OPTIONS = JobOptions(
    expires=AT + 60_000, eta=AT + 5, max_retries=7, time_limit=1_500, soft_time_limit=1_000, result_ttl=0,
    ignore_result=True, key="invoice-7", codec="json", headers={"trace": "00-ab"},
)  # fmt: skip
ARGS = wire.encode_value([1, "two", None, 2.5, b"\x00\xff", {"deep": [True]}])
JOB = JobBody(1, "app.add", ARGS, AT)
RETRIED = JobBody(
    1, "app.add", ARGS, AT, wire.encode_value({"y": 3}), wire.encode_options(OPTIONS), 2, [FAILURE], AT + 1, AT + 3
)
SUCCESS = Record(1, State.SUCCESS, "app.add", wire.encode_value(5), None, "", AT, AT + 1, AT + 2, "host-1-a", 1, 0)
FAILED = Record(
    1, State.FAILURE, "app.add", NIL, FAILURE, "exhausted", AT, AT + 1, AT + 2, "host-1-a", 3, 2, [FAILURE, FAILURE]
)
DEAD = DeadLetter(1, "id-1", "app.add", Reason.EXHAUSTED, "app.Refused: no", b"\x01body", 5, AT, 3, [FAILURE])


def decode_job(data: bytes) -> JobBody:
    return wire.decode_job(data, LIMIT)


Row = tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]
GOLDENS: dict[str, Row] = {
    "job": (JOB, wire.encode_job, decode_job),
    "job_retried": (RETRIED, wire.encode_job, decode_job),
    "record_success": (SUCCESS, wire.encode_record, wire.decode_record),
    "record_failure": (FAILED, wire.encode_record, wire.decode_record),
    "dead": (DEAD, wire.encode_dead, wire.decode_dead),
    "progress": (Progress(3.0, 10.0, "rows", AT), wire.encode_progress, wire.decode_progress),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_what_was_written_once_is_read_for_ever(name: str) -> None:
    value, encode, decode = GOLDENS[name]
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert decode(data) == value
    assert encode(value) == data


def test_every_golden_file_is_read() -> None:
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


def test_options_travel_as_they_are() -> None:
    job = decode_job((GOLDEN / "job_retried.bin").read_bytes())
    assert wire.decode_options(job.options) == OPTIONS
    assert wire.encode_options(JobOptions()) == wire.NO_OPTIONS
    assert wire.decode_options(wire.NO_OPTIONS) == JobOptions()


def test_options_of_a_newer_release_survive_a_retry() -> None:
    newer = wire.encode_value({"expires": 5, "colour": "red"})
    job = decode_job(wire.encode_job(msgspec.structs.replace(JOB, options=newer)))
    assert wire.decode_options(job.options).expires == 5
    assert decode_job(wire.encode_job(job)).options == newer


# ---- unreadable ------------------------------------------------------------------------------------------------

VALID = wire.encode_job(JOB)
DEEP = b"\x91" * 100_000
ENVELOPE = b"\x9a\x01\xa1t"
UNREADABLE = {
    "empty": b"",
    "no fields": b"\x90",
    "a map": b"\x80",
    "nil": b"\xc0",
    "json": b'{"task": "add", "args": [1, 2]}',
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    "random": bytes(range(255, 0, -1)),
    "never used byte": b"\xc1",
    "nested 100,000 deep": DEEP,
    "arguments nested 100,000 deep": ENVELOPE + DEEP,
    "claims 4G items": b"\xdd\xff\xff\xff\xff",
    "arguments claim 4G items": ENVELOPE + b"\xdd\xff\xff\xff\xff\x80\x00\x80",
    "failures claim 4G items": ENVELOPE + b"\x90\x80\x00\x80\x00\xdd\xff\xff\xff\xff" + b"\x96\xa0\xa0\xa0\x00\x00\xa0",
    "task claims 4 GB": b"\x9a\x01\xdb\xff\xff\xff\xfft",
    "truncated": VALID[:-1],
    "something follows": VALID + b"\x00",
    "wrong type of task": msgspec.msgpack.encode([1, 7, [], {}, 0, {}]),
    "wrong type of version": msgspec.msgpack.encode(["1", "t", [], {}, 0, {}]),
    "huge integer": msgspec.msgpack.encode([1, "t", [], {}, "x", {}]),
    "a newer format": msgspec.msgpack.encode([2, "t", [], {}, 0, {}]),
    "format 0": msgspec.msgpack.encode([0, "t", [], {}, 0, {}]),
    "task is not UTF-8": b"\x96\x01\xa2\xff\xfe\x90\x80\x00\x80",
    "too large": wire.encode_job(msgspec.structs.replace(JOB, args=wire.encode_value(["x" * 2 * LIMIT]))),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_job(data: bytes) -> None:
    with pytest.raises(wire.Unreadable) as caught:
        wire.decode_job(data, LIMIT)
    assert len(str(caught.value)) <= 500


def test_the_size_is_looked_at_before_the_bytes() -> None:
    with pytest.raises(wire.Unreadable, match="max_payload"):
        wire.decode_job(b"\xdd\x03\x00\x00\x00" + b"\xc0" * 2 * LIMIT, LIMIT)
    assert wire.decode_job(VALID, len(VALID)) == JOB


DECODERS = [decode_job, wire.decode_record, wire.decode_dead, wire.decode_progress]


@pytest.mark.parametrize("decode", [*DECODERS, lambda data: wire.decode_options(msgspec.Raw(data))])
@pytest.mark.parametrize("data", [b"", b"\xc1", DEEP, b"\xdd\xff\xff\xff\xff", b"\xa2\xff\xfe", b'{"a": 1}'])
def test_nothing_else_is_readable_either(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(wire.Unreadable):
        decode(data)


@settings(max_examples=150, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=4))))
def test_random_bytes_raise_nothing_else(data: bytes | tuple[int, bytes]) -> None:
    if isinstance(data, tuple):  # a valid job with a few bytes changed
        at, put = data
        data = VALID[:at] + put + VALID[at + len(put) :]
    for decode in DECODERS:
        try:
            decode(data)
        except wire.Unreadable:
            continue


# ---- values --------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: list[float]


class Shape(msgspec.Struct):
    name: str
    at: Point | None = None


class Order(pydantic.BaseModel):
    number: int
    when: datetime
    tags: set[str] = set()


VALUES: list[tuple[Any, object]] = [
    (int, 2**63 - 1),
    (int, -(2**63)),
    (str, "\N{SNOWMAN}\0"),
    (bytes, b"\x00\xff"),
    (Point, Point(1, [2.5])),
    (Shape, Shape("s", Point(1, []))),
    (datetime, datetime(2025, 6, 1, 12, 30, 1, 5, tzinfo=UTC)),
    (datetime, datetime(2025, 6, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))),
    (datetime, datetime(2025, 6, 1, 12, 30)),
    (date, date(2025, 6, 1)),
    (timedelta, timedelta(seconds=90)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (Colour, Colour.RED),
    (Path, Path("/a/b")),
    (PurePosixPath, PurePosixPath("c")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (Order, Order(number=1, when=datetime(2025, 1, 1, tzinfo=UTC), tags={"a"})),
    (list[Order], [Order(number=1, when=datetime(2025, 1, 1, tzinfo=UTC))]),
    (dict[str, Path], {"a": Path("b")}),
]


@pytest.mark.parametrize("codec", wire.CODECS)
@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[f"{n}-{type(v).__name__}" for n, (_, v) in enumerate(VALUES)])
def test_values_come_back(codec: str, kind: Any, value: object) -> None:
    chosen = wire.CODECS[codec]
    back = chosen.decoder(kind)(chosen.encode(value))
    assert (back, type(back)) == (value, type(value))


def test_values_without_a_type() -> None:
    assert wire.decode_value(wire.encode_value([1, "a", None, {"b": b"c"}])) == [1, "a", None, {"b": b"c"}]


@pytest.mark.parametrize(
    ("value", "error"), [(object(), TypeError), ([len], TypeError), (2**64, OverflowError), ("\ud800", UnicodeError)]
)
def test_what_cannot_travel(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        wire.encode_value(value)


@pytest.mark.parametrize("kind", [Point, Order, Path, UUID, Colour, complex])
def test_a_value_of_another_type_is_refused(kind: Any) -> None:
    with pytest.raises((msgspec.ValidationError, TypeError)):
        wire.decoder(kind)(wire.encode_value([1]))


def test_a_whole_batch_of_nils_stays_small() -> None:
    claimed = b"\xdd" + struct.pack(">I", 1000) + b"\xc0" * 1000
    with pytest.raises(wire.Unreadable, match="not a job"):
        wire.decode_job(claimed, LIMIT)
