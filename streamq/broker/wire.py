"""The one wire format: what a job, a record and a dead letter are as bytes. Golden files keep it readable for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from streamq.core.codec import SEALED
from streamq.core.job import NO_KWARGS as NO_KWARGS
from streamq.core.job import NO_OPTIONS as NO_OPTIONS
from streamq.core.job import DeadLetter, JobBody, JobOptions, Progress, Record
from streamq.errors import Undecodable

T = TypeVar("T")

JOB_VERSION: Final = 1


class Unreadable(ValueError):
    """Bytes that are no job of a version this release can read."""


# ---- values: arguments and results ---------------------------------------------------------------------


def _to_plain(value: object) -> object:
    """What msgpack has no type for. Raises TypeError."""
    if isinstance(value, PurePath):
        return str(value)
    dump = getattr(value, "model_dump", None)  # pydantic, without importing it
    if dump is not None and callable(dump):
        return dump(mode="json")
    raise TypeError(
        f"a value of type {type(value).__qualname__} cannot be serialised: pass None, bool, int, float, str, bytes, "
        "list, tuple, set, dict, a dataclass, msgspec.Struct, datetime, UUID, Decimal, Enum, Path or a pydantic model"
    )


def _from_plain(kind: type[Any], value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    raise TypeError(f"{kind.__name__} cannot be made from {type(value).__name__}")


def _from_ext(code: int, data: memoryview) -> object:
    if code == SEALED:
        raise Undecodable("it is encoded by a codec, and is to be decoded by the same: StreamQ(codec=...)")
    return msgspec.msgpack.Ext(code, bytes(data))


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_any_decoder: Final = msgspec.msgpack.Decoder(ext_hook=_from_ext)


def encode_value(value: object) -> Raw:
    """The msgpack of one value: an argument list, a keyword map, a result.

    Raises TypeError (no such type), OverflowError, RecursionError or UnicodeEncodeError.
    """
    return Raw(_encoder.encode(value))


def decode_value(raw: Raw | bytes) -> object:
    """The value without a type to convert it to. Raises `Undecodable` for what a codec made."""
    return _any_decoder.decode(raw)


def decoder(kind: Any) -> Callable[[Raw | bytes], Any]:
    """A function that decodes msgpack to `kind`: dataclass, Struct, datetime, UUID, Decimal, Enum, Path, pydantic.

    It raises `msgspec.ValidationError` for a value that does not fit.
    """
    return msgspec.msgpack.Decoder(kind, dec_hook=_from_plain, ext_hook=_from_ext).decode


class Codec(NamedTuple):
    """A serializer of arguments. What is not msgpack travels as a msgpack binary."""

    encode: Callable[[object], Raw]
    decoder: Callable[[Any], Callable[[Raw | bytes], Any]]


def _encode_json(value: object) -> Raw:
    # msgspec writes inf and nan as null: a value must never silently become another.
    plain = msgspec.to_builtins(value, enc_hook=_to_plain)
    return Raw(_encoder.encode(json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()))


def _json_decoder(kind: Any) -> Callable[[Raw | bytes], Any]:
    unpack = msgspec.msgpack.Decoder(bytes).decode
    decode = msgspec.json.Decoder(kind, dec_hook=_from_plain).decode
    return lambda raw: decode(unpack(raw))


CODECS: Final[dict[str, Codec]] = {
    "msgpack": Codec(encode_value, decoder),
    "json": Codec(_encode_json, _json_decoder),
}


# ---- envelopes --------------------------------------------------------------------------------------------

_job_decoder: Final = msgspec.msgpack.Decoder(JobBody)
_options_decoder: Final = msgspec.msgpack.Decoder(JobOptions)
_record_decoder: Final = msgspec.msgpack.Decoder(Record)
_dead_decoder: Final = msgspec.msgpack.Decoder(DeadLetter)
_progress_decoder: Final = msgspec.msgpack.Decoder(Progress)


class _Plain(msgspec.Struct, array_like=True):
    """The head of a JobBody whose other fields have their defaults."""

    version: int
    task: str
    args: Raw
    enqueued_at: int


def encode_job(job: JobBody) -> bytes:
    """The body of a stream entry. Of a plain call it ends with `enqueued_at`: six bytes less in Redis."""
    later = job.retries or job.failures or job.started_at or job.parked_at
    if not later and job.kwargs is NO_KWARGS and job.options is NO_OPTIONS:
        return _encoder.encode(_Plain(job.version, job.task, job.args, job.enqueued_at))
    return _encoder.encode(job)


encode_record: Final[Callable[[Record], bytes]] = _encoder.encode
encode_dead: Final[Callable[[DeadLetter], bytes]] = _encoder.encode
encode_progress: Final[Callable[[Progress], bytes]] = _encoder.encode


def decode_job(body: bytes, max_payload: int) -> JobBody:
    """The job in a stream entry. Raises `Unreadable`, whatever the bytes are.

    The size is looked at first: 50 MB of nils would become 400 MB of objects.
    """
    if len(body) > max_payload + max_payload // 4:  # the envelope, with ten tracebacks, is not the user's payload
        raise Unreadable(f"{len(body):,} bytes, more than max_payload ({max_payload:,}) allows")
    try:
        job = _job_decoder.decode(body)
    except Exception as error:  # noqa: BLE001 - msgspec can raise RecursionError and UnicodeDecodeError too
        raise Unreadable(f"not a job: {type(error).__name__}: {error}"[:500]) from None
    if job.version != JOB_VERSION:
        raise Unreadable(f"job format {job.version}, this release reads {JOB_VERSION}: upgrade this worker")
    return job


def encode_options(options: JobOptions) -> Raw:
    """The options that a call set; an empty map if it set none."""
    return Raw(_encoder.encode(options))


def decode_options(raw: Raw) -> JobOptions:
    """Raises `Unreadable`."""
    try:
        return _options_decoder.decode(raw)
    except Exception as error:  # noqa: BLE001 - see decode_job
        raise Unreadable(f"its options: {type(error).__name__}: {error}"[:500]) from None


def _decoded(decode: Callable[[bytes], T], data: bytes, what: str) -> T:
    try:
        return decode(data)
    except Exception as error:  # noqa: BLE001 - see decode_job
        raise Unreadable(f"not a {what}: {type(error).__name__}: {error}"[:500]) from None


def decode_record(data: bytes) -> Record:
    """Raises `Unreadable`."""
    return _decoded(_record_decoder.decode, data, "record")


def decode_dead(data: bytes) -> DeadLetter:
    """Raises `Unreadable`."""
    return _decoded(_dead_decoder.decode, data, "dead letter")


def decode_progress(data: bytes) -> Progress:
    """Raises `Unreadable`."""
    return _decoded(_progress_decoder.decode, data, "progress note")
