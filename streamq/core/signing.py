"""Signatures of jobs: who may write into a queue is one thing, whose jobs are run another.

HMAC-SHA256 over what a job is and where it belongs. What changes on its way (retries, failures, times of attempts) is
not covered, so that workers, promoters and sweeps pass a job on as it came.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from streamq.core.job import JobBody

FIELD: Final = "sig"  # of the job's options: `JobOptions.sig`
SHORTEST: Final = 16  # bytes of a secret
_DIGEST: Final = 32
_DOMAIN: Final = "streamq job"

_encode: Final = msgspec.msgpack.Encoder().encode
_options: Final = msgspec.msgpack.Decoder(dict[str, Raw])


class BadSignature(ValueError):
    """The job is not signed, or its signature does not fit."""


class Keyring:
    """Keys by their ids: the first one signs, all of them verify. Its repr has the ids alone.

    Keyring([("2026-11", new), ("2026-10", old)])
    """

    __slots__ = ("_keys", "_signs")

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._signs = keys[0][0].encode()
        self._keys = {kid.encode(): hmac.new(secret, digestmod=hashlib.sha256) for kid, secret in keys}

    def sign(self, namespace: str, queue: str, job_id: str, job: JobBody) -> Raw:
        """The job's options with a signature of the whole job among them."""
        said = _options.decode(job.options)
        said.pop(FIELD, None)
        mac = self._mac(self._signs, namespace, queue, job_id, job, said)
        said[FIELD] = Raw(_encode(self._signs + b":" + mac))
        return Raw(_encode(said))

    def verify(self, namespace: str, queue: str, job_id: str, job: JobBody) -> None:
        """Raise `BadSignature` unless this very job was signed, for this queue and this id, with one of the keys."""
        try:
            said = _options.decode(job.options)
            signature = msgspec.msgpack.decode(said.pop(FIELD, b"\xc0"), type=bytes | None)
        except Exception as error:  # noqa: BLE001 - whatever the bytes are, see wire.decode_job
            raise BadSignature(f"its options cannot be read: {type(error).__name__}: {error}"[:500]) from None
        if signature is None:
            raise BadSignature("it is not signed")
        kid, mac = signature[: -_DIGEST - 1], signature[-_DIGEST:]
        if kid not in self._keys:
            shown = kid[:64].decode(errors="replace")
            raise BadSignature(f"it is signed with the key {shown!r}, which this worker does not have")
        if not hmac.compare_digest(mac, self._mac(kid, namespace, queue, job_id, job, said)):
            raise BadSignature("its signature does not fit: it was changed, or made for another queue, id or task")

    def _mac(self, kid: bytes, namespace: str, queue: str, job_id: str, job: JobBody, options: dict[str, Raw]) -> bytes:
        mac = self._keys[kid].copy()  # msgpack says how long each part is: none can pass for another
        about = (_DOMAIN, job.version, namespace, queue, job_id, job.task, job.enqueued_at)
        mac.update(_encode((*about, bytes(job.args), bytes(job.kwargs), options)))
        return mac.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyring) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((kid, mac.digest()) for kid, mac in self._keys.items())

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(kid.decode() for kid in self._keys)}>"

    __str__ = __repr__
