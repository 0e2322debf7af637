"""Bytes that are almost jobs: for hypothesis."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import strategies as st

from streamq.broker import wire
from streamq.core.codec import SEALED

GOLDEN = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "broker" / "golden").glob("*.bin"))]
AT = 1_750_000_000_000

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgspec.msgpack.Ext, st.sampled_from([SEALED, -1, 0, 127]), st.binary(max_size=12))
)
values = st.recursive(
    leaves,
    lambda below: (
        st.lists(below, max_size=5) | st.dictionaries(st.text(max_size=8) | st.integers(-5, 2**40), below, max_size=4)
    ),
    max_leaves=12,
)
packed = values.map(msgspec.msgpack.encode)
OPTIONS = [*msgspec.structs.asdict(wire.decode_options(wire.NO_OPTIONS)), "colour"]
options = st.dictionaries(st.sampled_from(OPTIONS), values, max_size=4)


@st.composite
def envelopes(draw: st.DrawFn, task: st.SearchStrategy[str] | None = None) -> bytes:
    """A job in which each field is right, or anything."""
    fields = [1, "echo", [7], AT, {}, {}, 0, [], 0, 0]
    if task is not None:
        fields[1] = draw(task)
    for index in draw(st.sets(st.integers(0, 9), max_size=3)):
        fields[index] = draw(options if index == 5 else values)
    return msgspec.msgpack.encode(fields[: draw(st.integers(3, 10))] + draw(st.lists(values, max_size=2)))


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """What was a job, a record or a letter: cut, doubled, with bytes changed, with a lying length in it."""
    data = bytearray(draw(st.sampled_from(GOLDEN) | envelopes()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 2:
                data[at:at] = draw(st.binary(max_size=5))
            case 3:
                data[at:at] = draw(st.sampled_from([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])) + b"\xff\xff\xff\xff"
            case _:
                data += data[at:]
    return bytes(data)


bodies = st.binary(max_size=64) | packed | envelopes() | torn()
