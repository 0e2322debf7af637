"""Arguments and results as bytes that only the owner of a codec can read."""

from __future__ import annotations

from typing import Final, Protocol, cast

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from streamq.core.job import JobBody
from streamq.errors import Undecodable

SEALED: Final = 83  # the msgpack extension type in which it travels: neither arguments nor plain results begin so
_FIRST: Final = frozenset((0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8))  # bytes of a msgpack extension

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class PayloadCodec(Protocol):
    """What `StreamQ(codec=...)` takes. It is called in the event loop, for arguments and results: never wait in it.

    What `decode` raises makes the job a dead letter with the reason `undecodable`.
    """

    def encode(self, data: bytes, /) -> bytes:
        """The bytes that are kept in Redis."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """The same bytes that were given to `encode`; raise whatever you like for others."""
        ...


def seal(codec: PayloadCodec, plain: Raw) -> Raw:
    """What is kept instead. Raises whatever the codec raises."""
    return Raw(_encode(Ext(SEALED, codec.encode(bytes(plain)))))


def unseal(codec: PayloadCodec | None, raw: Raw, limit: int) -> Raw:
    """The msgpack that was sealed; what was not sealed stays what it is. Raises `Undecodable`, and nothing else.

    `limit` is in bytes: a codec that decompresses could be given a bomb.
    """
    if not is_sealed(raw):
        return raw
    if codec is None:
        raise Undecodable("they are encoded by a codec, and this application has none: StreamQ(codec=...)")
    try:
        plain = codec.decode(bytes(cast(Ext, _decode(raw)).data))
    except Exception as error:
        raise Undecodable(f"the codec failed: {type(error).__name__}: {error}"[:500]) from error
    if not isinstance(plain, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Undecodable(f"the codec gave {type(plain).__name__}, not bytes")
    if len(plain) > limit:
        raise Undecodable(f"decoded they are {len(plain):,} bytes, more than max_payload ({limit:,}) allows")
    return Raw(plain)


def opened(codec: PayloadCodec, job: JobBody, limit: int) -> JobBody:
    """The job as its task sees it. Raises `Undecodable`."""
    args, kwargs = (unseal(codec, raw, limit) for raw in (job.args, job.kwargs))
    return msgspec.structs.replace(job, args=args, kwargs=kwargs)


def is_sealed(raw: Raw) -> bool:
    """Whether a codec made this."""
    if len(raw) == 0 or memoryview(raw)[0] not in _FIRST:
        return False
    try:
        return cast(Ext, _decode(raw)).code == SEALED
    except (msgspec.DecodeError, AttributeError):  # torn, or one that msgspec knows by itself: a timestamp
        return False
