"""What a signature covers, and that nothing but the job that was signed has it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from streamq.broker import wire
from streamq.core.job import Failure, JobBody, JobOptions
from streamq.core.signing import BadSignature, Keyring

AT = 1_750_000_000_000
OLD, NEW = ("2026-10", b"old secret of 16"), ("2026-11", b"new secret of 16")
RING = Keyring([NEW, OLD])
PLACE = ("shop", "emails", "id-1")
JOB = JobBody(1, "mail.send", wire.encode_value(["a", 7]), AT, wire.encode_value({"x": 1}))
SAID = wire.encode_options(JobOptions(max_retries=3, headers={"trace": "00"}))


def signed(job: JobBody = JOB, ring: Keyring = RING, place: tuple[str, str, str] = PLACE) -> JobBody:
    return replace(job, options=ring.sign(*place, job))


def refused(job: JobBody, place: tuple[str, str, str] = PLACE, ring: Keyring = RING) -> str:
    with pytest.raises(BadSignature) as caught:
        ring.verify(*place, job)
    return str(caught.value)


def test_what_is_signed_verifies_also_after_a_way_through_redis() -> None:
    for job in (signed(), signed(replace(JOB, options=SAID)), signed(replace(JOB, kwargs=wire.NO_KWARGS))):
        RING.verify(*PLACE, wire.decode_job(wire.encode_job(job), 1 << 20))
    options = wire.decode_options(signed(replace(JOB, options=SAID)).options)
    assert (options.max_retries, options.headers) == (3, {"trace": "00"})


def test_what_changes_on_the_way_is_not_covered() -> None:
    failure = Failure("app.Down", "no", "", AT, 1)
    RING.verify(*PLACE, replace(signed(), retries=2, failures=[failure], started_at=AT, parked_at=AT))


CHANGES = {
    "version": {"version": 2},
    "task": {"task": "mail.drop"},
    "args": {"args": wire.encode_value(["b", 7])},
    "kwargs": {"kwargs": wire.encode_value({"x": 2})},
    "enqueued_at": {"enqueued_at": AT + 1},
    "swapped": {"args": JOB.kwargs, "kwargs": JOB.args},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_changed_does_not_verify(change: dict[str, object]) -> None:
    assert "does not fit" in refused(replace(signed(), **change))


@pytest.mark.parametrize("place", [("shop2", "emails", "id-1"), ("shop", "mail", "id-1"), ("shop", "emails", "id-2")])
def test_it_fits_one_namespace_one_queue_and_one_id(place: tuple[str, str, str]) -> None:
    assert "does not fit" in refused(signed(), place)


def test_options_are_covered_those_of_newer_releases_too() -> None:
    newer = signed(replace(JOB, options=wire.encode_value({"max_retries": 3, "colour": "red"})))
    RING.verify(*PLACE, newer)
    said = msgspec.msgpack.decode(newer.options, type=dict[str, Raw])
    for changed in (said | {"colour": Raw(b"\xa1b")}, said | {"expires": Raw(b"\x01")}, {"sig": said["sig"]}):
        assert "does not fit" in refused(replace(newer, options=wire.encode_value(changed)))


def test_of_two_options_of_one_name_the_one_that_counts_is_covered() -> None:
    """A map may have a key twice: what is verified must be what is read."""
    said = bytes(signed(replace(JOB, options=wire.encode_value({"max_retries": 3}))).options)
    assert said[0] == 0x82
    twice = replace(JOB, options=Raw(b"\x83" + said[1:] + b"\xabmax_retries\x09"))
    assert wire.decode_options(twice.options).max_retries == 9
    assert "does not fit" in refused(twice)
    before = replace(JOB, options=Raw(b"\x83" + b"\xabmax_retries\x09" + said[1:]))
    assert wire.decode_options(before.options).max_retries == 3  # the signed one counts
    RING.verify(*PLACE, before)


def test_rotation() -> None:
    of_old = signed(ring=Keyring([OLD]))
    RING.verify(*PLACE, of_old)
    assert "does not have" in refused(signed(), ring=Keyring([OLD]))
    assert "does not fit" in refused(signed(), ring=Keyring([("2026-11", b"another of 16 b.")]))
    assert wire.decode_options(signed(of_old).options).sig.startswith(b"2026-11:")


@pytest.mark.parametrize("raw", [b"\x80", b"\x81\xa3sig\xc0"])
def test_unsigned(raw: bytes) -> None:
    assert refused(replace(JOB, options=Raw(raw))) == "it is not signed"


@given(st.binary(max_size=80))
def test_whatever_stands_there_is_no_signature(junk: bytes) -> None:
    assert refused(replace(JOB, options=wire.encode_value({"sig": junk})))
    assert refused(replace(JOB, options=Raw(junk or b"\x00")))


def test_no_secret_is_shown() -> None:
    assert repr(RING) == str(RING) == "<Keyring 2026-11, 2026-10>"
    assert Keyring([NEW, OLD]) == RING != Keyring([NEW, ("2026-10", b"some other secret")])
    assert len({Keyring([NEW, OLD]), RING}) == 1
