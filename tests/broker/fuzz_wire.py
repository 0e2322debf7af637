"""The wire format under a fuzzer that follows the branches. By hand, for as long as you like:

    pip install atheris
    PYTHONPATH=. python tests/broker/fuzz_wire.py -max_total_time=60 /tmp/corpus tests/broker/golden

It ends with a traceback and the bytes, if anything but the errors that are allowed gets out.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import atheris  # type: ignore[import-not-found]  # no part of the development extra: it has no wheel for every Python

with atheris.instrument_imports(include=["streamq"]):
    from msgspec import Raw

    from streamq.broker import wire
    from streamq.client.info import arguments
    from streamq.client.signature import Parameters
    from streamq.core.codec import unseal
    from streamq.core.options import AppOptions
    from streamq.core.signing import BadSignature, Keyring
    from streamq.errors import InvalidArguments, Undecodable

LIMIT = 4_096
RING = Keyring([("k", b"x" * 16)])
SETTINGS = AppOptions(max_payload=LIMIT)


def took(x: int, y: str = "", *rest: float, z: list[int] | None = None, **more: Any) -> None: ...


TOOK = Parameters("took", took)


def one_input(data: bytes) -> None:
    for decode in (wire.decode_record, wire.decode_dead, wire.decode_progress):
        with suppress(wire.Unreadable):
            decode(data)
    with suppress(wire.Unreadable):
        arguments(data, SETTINGS)
    with suppress(Undecodable):
        unseal(None, Raw(data), LIMIT)
    with suppress(wire.Unreadable):
        job = wire.decode_job(data, LIMIT)
        with suppress(BadSignature):
            RING.verify("n", "q", "id", job)
            raise AssertionError("it was never signed")
        wire.decode_job(wire.encode_job(job), 2 * LIMIT)
        codec = wire.decode_options(job.options).codec
        with suppress(InvalidArguments, Undecodable):
            TOOK.decode(job.args, job.kwargs, codec)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
