"""Whatever the bytes are: a value of the right type, or `Unreadable`. Nothing else gets out, nothing large is made."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from streamq.broker import wire
from streamq.client.info import arguments, read_job
from streamq.client.signature import Parameters
from streamq.core.codec import is_sealed, unseal
from streamq.core.job import DeadLetter, JobBody, JobOptions, Progress, Record
from streamq.core.options import AppOptions
from streamq.core.signing import BadSignature, Keyring
from streamq.errors import InvalidArguments, Undecodable
from tests.worker.fuzzed import bodies, packed

LIMIT = 1 << 16
RING = Keyring([("k", b"x" * 16)])
MANY = settings(max_examples=300, deadline=None, database=None)

READERS: dict[str, tuple[Callable[[bytes], Any], type]] = {
    "job": (lambda data: wire.decode_job(data, LIMIT), JobBody),
    "options": (lambda data: wire.decode_options(Raw(data)), JobOptions),
    "record": (wire.decode_record, Record),
    "dead letter": (wire.decode_dead, DeadLetter),
    "progress": (wire.decode_progress, Progress),
}


@pytest.mark.parametrize("name", READERS)
@MANY
@given(data=bodies)
def test_any_bytes(name: str, data: bytes) -> None:
    read, kind = READERS[name]
    try:
        found = read(data)
    except wire.Unreadable:
        return
    assert isinstance(found, kind)


@MANY
@given(bodies)
def test_what_is_a_job_can_be_written_again(data: bytes) -> None:
    try:
        job = wire.decode_job(data, LIMIT)
    except wire.Unreadable:
        return
    again = wire.decode_job(wire.encode_job(job), 2 * LIMIT)
    assert msgspec.structs.replace(job, failures=[]) == msgspec.structs.replace(again, failures=[])
    read_job(data, LIMIT)


@MANY
@given(bodies)
def test_what_is_not_signed_is_refused_whatever_it_is(data: bytes) -> None:
    try:
        job = wire.decode_job(data, LIMIT)
    except wire.Unreadable:
        return
    with pytest.raises(BadSignature):
        RING.verify("n", "q", "id", job)


def took(x: int, y: str = "", *rest: float, z: list[int] | None = None, **more: Any) -> None: ...


@MANY
@given(packed | st.binary(max_size=30), packed | st.binary(max_size=30), st.sampled_from(["", "json"]))
def test_any_arguments_of_a_job(args: bytes, kwargs: bytes, codec: str) -> None:
    try:
        job = wire.decode_job(b"\x96\x01\xa1t" + args + b"\x00" + kwargs + b"\x80", LIMIT)
    except wire.Unreadable:
        return
    with suppress(InvalidArguments, Undecodable):  # a failure of this job
        given, named = Parameters("took", took).decode(job.args, job.kwargs, codec)
        took(*given, **named)  # type: ignore[arg-type]


@MANY
@given(bodies)
def test_arguments_for_people(data: bytes) -> None:
    with suppress(wire.Unreadable):
        arguments(data, AppOptions(max_payload=LIMIT))


@MANY
@given(bodies)
def test_anything_a_codec_did_not_make(data: bytes) -> None:
    raw = Raw(data)
    if not is_sealed(raw):
        assert unseal(None, raw, LIMIT) is raw
    else:
        with pytest.raises(Undecodable):
            unseal(None, raw, LIMIT)


NILS = b"\xc0" * LIMIT
BOMBS = {
    "50 MB of nils": b"\xc0" * 50_000_000,
    "arguments of nils": b"\x94\x01\xa1t\xdd" + LIMIT.to_bytes(4) + NILS + b"\x00",
    "of empty arrays": b"\x94\x01\xa1t\xdd" + LIMIT.to_bytes(4) + b"\x90" * LIMIT + b"\x00",
    "failures of nils": b"\x98\x01\xa1t\x90\x00\x80\x80\x00\xdd" + LIMIT.to_bytes(4) + NILS,
    "options of nils": b"\x96\x01\xa1t\x90\x00\x80\xdf" + (LIMIT // 2).to_bytes(4) + NILS,
    "claims 4G failures": b"\x98\x01\xa1t\x90\x00\x80\x80\x00\xdd\xff\xff\xff\xff" + b"\x96\xa0\xa0\xa0\x00\x00\xa0",
    "100,000 deep": b"\x91" * 100_000,
}


def peak(work: Callable[[], object], expected: type[Exception]) -> int:
    """The most bytes of memory that it had at once, when it was called for the second time."""
    with suppress(expected):
        work()
    tracemalloc.start()
    try:
        with suppress(expected):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_reading_makes_no_more_than_twice_the_limit(bomb: bytes) -> None:
    def read() -> None:
        wire.decode_options(wire.decode_job(bomb, LIMIT).options)

    assert peak(read, wire.Unreadable) < 2 * LIMIT


def listed(item: bytes) -> bytes:
    return b"\xdd" + LIMIT.to_bytes(4) + item * LIMIT


def mapped(item: bytes) -> bytes:
    return b"\xdf" + (LIMIT // 4).to_bytes(4) + b"".join(b"\xa4%04x" % n + item for n in range(LIMIT // 4))


def plain(x: int, y: str = "") -> None: ...


def any_number(*x: int) -> None: ...


def by_name(*, x: list[int]) -> None: ...


MISFITS: dict[str, tuple[Callable[..., None], bytes, bytes]] = {
    "a million nils": (plain, listed(b"\xc0"), b"\x80"),
    "a million arrays": (plain, listed(b"\x90"), b"\x80"),
    "one that has a million": (plain, b"\x91" + listed(b"\x90"), b"\x80"),
    "any number of arrays": (any_number, listed(b"\x90"), b"\x80"),
    "by names that are not there": (plain, b"\x91\x01", mapped(b"\x90")),
    "a name with a million": (by_name, b"\x90", b"\x81\xa1x" + listed(b"\x90")),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS.keys())
def test_arguments_that_do_not_fit_are_not_made(misfit: tuple[Callable[..., None], bytes, bytes]) -> None:
    """Before, 1 MB of nils for a task with two parameters held the worker up for more than a minute."""
    task, args, kwargs = misfit
    parameters = Parameters("t", task)

    def refuse() -> None:
        parameters.decode(Raw(args), Raw(kwargs), "")

    with pytest.raises(InvalidArguments) as caught:
        refuse()
    assert len(str(caught.value)) < 500
    del caught
    assert peak(refuse, InvalidArguments) < 2 * LIMIT


def test_many_arguments_that_fit() -> None:
    def some(x: str, *rest: int) -> None: ...

    args = ["x", *range(1_000)]
    for codec in ("", "json"):
        encoded = Parameters("t", some).encode(args, {}, codec)
        assert Parameters("t", some).decode(*encoded, codec) == (args, {})
        with pytest.raises(InvalidArguments, match="'rest' is annotated list"):
            Parameters("t", some).decode(*Parameters("t", some).encode([*args, "y"], {}, codec), codec)
    numbers = Parameters("t", any_number)
    assert numbers.decode(*numbers.encode(args[1:], {}, ""), "") == (list(range(1_000)), {})
