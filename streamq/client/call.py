"""One call of a task as a value, its options, and the job that it becomes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict, cast

import msgspec

from streamq.broker import wire
from streamq.broker.broker import NewJob, fingerprint, idempotency
from streamq.client.signature import Parameters
from streamq.core.clock import Duration, eta_ms, milliseconds
from streamq.core.codec import PayloadCodec, seal
from streamq.core.ids import check_job_id, new_id
from streamq.core.job import JobBody, JobOptions
from streamq.core.limits import check_payload
from streamq.core.options import PRIORITIES, AppOptions, TaskOptions
from streamq.core.retry import FOREVER, retry_count
from streamq.errors import ConfigurationError, InvalidArguments


class CallSettings(TypedDict, total=False):
    """What `using(...)` takes: Celery's names where Celery has one. Durations are seconds, timedelta or "1h30m".

    queue, priority: where this job goes, 0 to 9, higher first
    countdown, eta: not before; one of them (a naive `eta` is UTC)
    expires: a duration or a datetime; if it has not started by then it does not start
    job_id (task_id): your own id; the same id in the same queue is the same job
    idempotency_key: the same key of the same task and queue is the same job while it is unfinished and for 24 h after;
        other arguments raise `IdempotencyMismatch`
    on_failed: what the key gives if its job ended without success: "return" that one, or "retry" with a new one
    max_retries, time_limit, soft_time_limit, result_ttl (result_expires), ignore_result, headers: as of the task
    durability: "memory", "replicas:N" or "fsync"
    serializer: of the arguments, "msgpack" or "json"
    """

    queue: str
    priority: int
    countdown: Duration
    eta: datetime
    expires: Duration | datetime
    job_id: str
    task_id: str
    idempotency_key: str
    on_failed: Literal["return", "retry"]
    max_retries: int | None
    time_limit: Duration
    soft_time_limit: Duration
    result_ttl: Duration
    result_expires: Duration
    ignore_result: bool
    headers: Mapping[str, str]
    durability: str
    serializer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call set, checked. Durations are whole milliseconds; None is what the task or the app says."""

    queue: str = ""
    priority: int | None = None
    countdown: int = 0
    eta: int = 0  # epoch ms
    expires: int | datetime | None = None
    job_id: str = ""
    idempotency_key: str = ""
    on_failed: str = "return"
    max_retries: int | None = None
    time_limit: int | None = None
    soft_time_limit: int | None = None
    result_ttl: int | None = None
    ignore_result: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    durability: str | None = None
    serializer: str = ""


NO_CALL_OPTIONS: Final = CallOptions()


@dataclass(slots=True)
class Call:
    """What is about to be enqueued, as a middleware's `send` sees it: it may change anything."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CallOptions = NO_CALL_OPTIONS


Check = Callable[[str, object], object]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name}={value!r} is not a text: give a str of one character or more.")
    return value


def queue_name(name: str, value: object) -> str:
    """A name that a queue can have. Raises `ConfigurationError`."""
    text = _text(name, value)
    if len(text) > 200 or not text.isprintable() or any(each in "{}" or each.isspace() for each in text):
        raise ConfigurationError(
            f"{name}={value!r} cannot name a queue: no spaces and no braces, at most 200 characters, as 'emails'."
        )
    return text


def priority(name: str, value: object) -> int:
    """0 to 9, the higher the sooner. Raises `ConfigurationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in PRIORITIES:
        raise ConfigurationError(f"{name}={value!r} is not a priority: give 0 to 9, the higher the sooner.")
    return value


def flag(name: str, value: object) -> bool:
    """True or False. Raises `ConfigurationError`."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} is neither True nor False.")
    return value


def duration_ms(name: str, value: object) -> int:
    """Whole milliseconds. Raises `ConfigurationError`."""
    return milliseconds(cast(Duration, value), name=name)


def limit_ms(name: str, value: object) -> int:
    """Whole milliseconds above 0. Raises `ConfigurationError`."""
    if not (found := duration_ms(name, value)):
        raise ConfigurationError(f"{name}={value!r} leaves no time at all: give more than 0, as '30s'.")
    return found


def headers(name: str, value: object) -> Mapping[str, str]:
    """A mapping of texts. Raises `ConfigurationError`."""
    if isinstance(value, Mapping):
        given = cast(Mapping[object, object], value)
        if all(isinstance(key, str) and isinstance(text, str) for key, text in given.items()):
            return dict(cast(Mapping[str, str], given))
    raise ConfigurationError(f"{name}={value!r}: headers are a dict of str to str.")


def durability(name: str, value: object) -> str:
    """`memory`, `fsync` or `replicas:N`. Raises `ConfigurationError`."""
    if value in ("memory", "fsync"):
        return str(value)
    kind, _, count = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "replicas" and count.isascii() and count.isdigit() and int(count) > 0:
        return f"replicas:{int(count)}"
    raise ConfigurationError(f'{name}={value!r} is not known: give "memory", "fsync" or "replicas:1".')


def codec(name: str, value: object) -> str:
    """A serializer that exists. Raises `ConfigurationError`."""
    if value not in wire.CODECS:
        raise ConfigurationError(f"{name}={value!r} is not known: give one of {', '.join(wire.CODECS)}.")
    return str(value)


def _expires(name: str, value: object) -> int | datetime:
    return value if isinstance(value, datetime) else limit_ms(name, value)


def _retries(name: str, value: object) -> int:
    return FOREVER if value is None else retry_count(value, name)


def _on_failed(name: str, value: object) -> str:
    if value not in ("return", "retry"):
        raise ConfigurationError(f'{name}={value!r} is not known: give "return" or "retry".')
    return str(value)


_TABLE: Final[dict[str, tuple[str, Check]]] = {
    "queue": ("queue", queue_name),
    "priority": ("priority", priority),
    "countdown": ("countdown", duration_ms),
    "eta": ("eta", lambda _, value: eta_ms(cast(datetime, value))),
    "expires": ("expires", _expires),
    "job_id": ("job_id", lambda _, value: check_job_id(cast(str, value))),
    "task_id": ("job_id", lambda _, value: check_job_id(cast(str, value))),
    "idempotency_key": ("idempotency_key", _text),
    "on_failed": ("on_failed", _on_failed),
    "max_retries": ("max_retries", _retries),
    "time_limit": ("time_limit", limit_ms),
    "soft_time_limit": ("soft_time_limit", limit_ms),
    "result_ttl": ("result_ttl", duration_ms),
    "result_expires": ("result_ttl", duration_ms),
    "ignore_result": ("ignore_result", flag),
    "headers": ("headers", headers),
    "durability": ("durability", durability),
    "serializer": ("serializer", codec),
}
_NULLABLE: Final = {"max_retries"}  # None says something; of the others it says: not given


def call_options(base: CallOptions, given: Mapping[str, object]) -> CallOptions:
    """`base` with what was given on top. Raises `ConfigurationError`, `InvalidArguments` for a bad job id."""
    changes: dict[str, Any] = {}
    said: dict[str, str] = {}
    for name, value in given.items():
        if name not in _TABLE:
            raise unknown_option(name, _TABLE, "call option")
        if value is None and name not in _NULLABLE:
            continue
        target, check = _TABLE[name]
        if target in said:
            raise ConfigurationError(f"{said[target]} and {name} are the same option: give one of them.")
        said[target] = name
        changes[target] = check(name, value)
    if "countdown" in changes and "eta" in changes:
        raise ConfigurationError("countdown and eta both say when: give one of them.")
    if "countdown" in changes:
        changes["eta"] = 0
    elif "eta" in changes:
        changes["countdown"] = 0
    options = replace(base, **changes)
    if options.soft_time_limit is not None and options.time_limit is not None:
        soft_below_hard(options.soft_time_limit / 1000, options.time_limit / 1000)
    return options


def soft_below_hard(soft: float | None, hard: float | None) -> None:
    """Raise `ConfigurationError` unless the soft limit comes first; both in seconds."""
    if soft is not None and hard is not None and soft >= hard:
        raise ConfigurationError(
            f"soft_time_limit={soft:g} s is not below time_limit={hard:g} s: the task would never see it."
        )


def unknown_option(name: str, known: Mapping[str, object], what: str) -> ConfigurationError:
    """The error for an option that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(sorted(known))}."
    return ConfigurationError(f"{name} is not a known {what}. {hint}")


def _expiry(call: CallOptions, task: TaskOptions, now: int) -> int:
    match call.expires:
        case datetime():
            return eta_ms(call.expires)
        case int():
            return now + call.expires
        case None:
            return now + milliseconds(timedelta(seconds=task.expires)) if task.expires else 0


def _job_options(call: CallOptions, task: TaskOptions, app: AppOptions, now: int) -> msgspec.Raw:
    serializer = call.serializer or app.serializer
    if call is NO_CALL_OPTIONS and not task.expires and not task.headers and serializer == "msgpack":
        return wire.NO_OPTIONS
    return wire.encode_options(
        JobOptions(
            expires=_expiry(call, task, now),
            eta=call.eta or (now + call.countdown if call.countdown else 0),
            max_retries=call.max_retries,
            time_limit=call.time_limit,
            soft_time_limit=call.soft_time_limit,
            result_ttl=call.result_ttl,
            ignore_result=call.ignore_result,
            key=call.idempotency_key,
            codec="" if serializer == "msgpack" else serializer,
            headers={**task.headers, **call.headers},
        )
    )


def _sealed(codec: PayloadCodec, task: str, args: msgspec.Raw, kwargs: msgspec.Raw) -> tuple[msgspec.Raw, msgspec.Raw]:
    try:
        return seal(codec, args), kwargs if kwargs is wire.NO_KWARGS else seal(codec, kwargs)
    except Exception as error:
        raise InvalidArguments(f"{task}: the codec cannot encode its arguments: {error}") from error


def build_job(
    call: Call,
    task: TaskOptions,
    parameters: Parameters,
    app: AppOptions,
    queue: str,
    priority: int,
    now: int,
    job_id: str = "",
) -> NewJob:
    """The job that a call becomes. `now` is epoch ms by the server's clock; `job_id` is of a call that names none.

    Raises `InvalidArguments` and `PayloadTooLarge`.
    """
    options = call.options
    parameters.check(call.args, call.kwargs)
    args, kwargs = parameters.encode(call.args, call.kwargs, options.serializer or app.serializer)
    if app.codec is not None:
        args, kwargs = _sealed(app.codec, call.task, args, kwargs)
    said = _job_options(options, task, app, now)
    job_id = options.job_id or job_id or new_id()
    unsent = JobBody(wire.JOB_VERSION, call.task, args, now, kwargs, said)
    if app.signing_keys is not None:
        unsent.options = app.signing_keys.sign(app.namespace, queue, job_id, unsent)
    body = wire.encode_job(unsent)
    check_payload(len(body), app.max_payload, f"the arguments of {call.task}")
    job = NewJob(job_id, body, priority, options.eta, options.countdown)
    if options.job_id:
        job.own_id = True
    if options.idempotency_key:
        job.key = idempotency(call.task, options.idempotency_key)
        same = parameters.identity(call.args, call.kwargs, options.serializer or app.serializer)
        job.fingerprint = fingerprint(same, wire.NO_KWARGS)
        job.retry_failed = options.on_failed == "retry"
    return job


def as_arguments(name: str, args: object, kwargs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Celery's `args` and `kwargs` as they are given to `apply_async`. Raises `InvalidArguments`."""
    if isinstance(args, (str, bytes)) or not (args is None or hasattr(args, "__iter__")):
        raise InvalidArguments(f"{name}: args={args!r} is not a list of arguments: write args=({args!r},).")
    if not (kwargs is None or isinstance(kwargs, Mapping)):
        raise InvalidArguments(f"{name}: kwargs={kwargs!r} is not a dict of arguments by name.")
    return tuple(cast(Any, args) or ()), dict(cast(Mapping[str, Any], kwargs or {}))
