"""What an application and a task may be told, checked once; each scalar has its STREAMQ_* variable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from streamq.broker.connect import Address
from streamq.client.call import (
    codec,
    durability,
    duration_ms,
    flag,
    headers,
    limit_ms,
    priority,
    queue_name,
    soft_below_hard,
    unknown_option,
)
from streamq.client.executor import Executor, executor
from streamq.client.hooks import Listener
from streamq.client.signing_keys import signing_keys
from streamq.core.clock import Duration, seconds
from streamq.core.codec import PayloadCodec
from streamq.core.options import AppOptions, TaskOptions
from streamq.core.retry import RetryPolicy
from streamq.core.wall import Zone
from streamq.errors import ConfigurationError

DEFAULT_URL: Final = "redis://localhost:6379/0"

Failure = type[BaseException]


class RetrySettings(TypedDict, total=False):
    """How failures are tried again, with Celery's names; for one task, or as defaults of an application.

    max_retries: how many attempts may follow the first one; None is no limit (3)
    default_retry_delay: how long each wait is, unless a backoff is asked for
    autoretry_for: exception classes that are tried again; of others only what raises `Retry` is
    dont_autoretry_for: exceptions to these classes
    retry_backoff: True waits 1, 2, 4 ... s, a number n waits n, 2n, 4n ... s, "fixed" waits `default_retry_delay`
        every time, False waits that or not at all; unless given, `default_retry_delay` every time, else as True
    retry_backoff_max: the longest wait of a growing backoff (10 min)
    retry_jitter: a random part of each growing wait, so that what failed together does not come back together (True)
    retry_kwargs: Celery's dict of `max_retries` and `countdown`
    retry_delays: exception class -> the wait after it, or a function from the retries spent to seconds
    """

    max_retries: int | None
    default_retry_delay: Duration
    autoretry_for: Iterable[Failure] | Failure
    dont_autoretry_for: Iterable[Failure] | Failure
    retry_backoff: bool | Duration
    retry_backoff_max: Duration
    retry_jitter: bool
    retry_kwargs: Mapping[str, object]
    retry_delays: Mapping[Failure, Duration | Callable[[int], float]]


class TaskSettings(RetrySettings, total=False):
    """What `@app.task(...)` takes. Durations are seconds, timedelta or "1h30m".

    name: of the task, for messages and routes; by default "module.function"
    queue, priority: where its jobs go, 0 to 9, higher first
    executor: "loop" for an `async def`, "thread" for a plain `def`, or "process": a plain `def` that needs the CPU runs
        in a child process, which is killed at the time limit
    time_limit: the attempt is cancelled and fails with `TimeLimitExceeded`; a thread goes on
    soft_time_limit: `SoftTimeLimitExceeded` is raised inside an `async def` or a child process; not in a thread
    result_ttl (result_expires): how long the record is kept; 0 keeps none
    ignore_result: keeps no record
    expires: jobs that have not started by then do not start
    acks_early: acknowledge before the task runs: it starts once at most, a crash loses it, its waiters may hear of
        the end 2 seconds late
    acks_on_failure: False hands a failed job to another worker at once, which counts as a crash
    log_args: the log line shows the arguments
    headers: sent with every job, read from `ctx.headers`
    on_success, on_error, on_exhausted: called with the event
    """

    name: str
    queue: str
    priority: int
    executor: Executor
    time_limit: Duration
    soft_time_limit: Duration
    result_ttl: Duration
    result_expires: Duration
    ignore_result: bool
    expires: Duration
    acks_early: bool
    acks_on_failure: bool
    log_args: bool
    headers: Mapping[str, str]
    on_success: Listener
    on_error: Listener
    on_exhausted: Listener


class AppSettings(RetrySettings, total=False):
    """What `StreamQ(...)` takes beside its URL, namespace and lifespan; each of these is also STREAMQ_<NAME>.

    lease: a worker that does not renew it for so long has lost its jobs; all workers of a queue must agree (30 s)
    grace: how long running jobs may go on when a worker stops (25 s)
    max_crashes: deliveries that may end without a report, before a job is a dead letter (3)
    max_payload: bytes of an encoded job or result (1 MiB)
    result_url: a Redis of its own for the records; by default they stay beside the queue
    result_ttl: how long the records of finished jobs are kept; 0 keeps none (1 h)
    ignore_result: keeps no records (False)
    time_limit, soft_time_limit: of tasks that have none of their own
    durability: what `enqueue` waits for: "memory", "replicas:N" or "fsync" ("memory")
    durability_timeout: how long it waits for that (5 s)
    serializer: of the arguments, "msgpack" or "json" ("msgpack")
    accept: the serializers that workers take (msgpack,json)
    timeout: how long one call goes on trying to reach Redis (30 s)
    tz: of cron expressions that name none (UTC)
    events: how many transitions of jobs each queue remembers, for `streamq timeline` and `events`; 0: none (10,000)
    stall: how long the event loop may stand still before the log names the job and the line that hold it; 0: for ever
        (1 s)
    pool_size: child processes that a worker runs at once, for tasks with `executor="process"`; 0: one for each core (0)
    signing_keys: pairs of a key's id and its secret, in the variable "id:base64,id:base64": jobs are signed with the
        first one, and workers run none but those signed with one of them
    """

    lease: Duration
    grace: Duration
    max_crashes: int
    max_payload: int
    result_url: str
    result_ttl: Duration
    ignore_result: bool
    time_limit: Duration
    soft_time_limit: Duration
    durability: str
    durability_timeout: Duration
    serializer: str
    accept: Iterable[str]
    timeout: Duration
    tz: str
    events: int
    stall: Duration
    pool_size: int
    signing_keys: Iterable[tuple[str, bytes]] | str


RETRY_NAMES: Final = frozenset(RetrySettings.__annotations__)
HOOKS: Final = {"on_success": "job.succeeded", "on_error": "job.failed", "on_exhausted": "job.exhausted"}

Check = Callable[[str, object], object]


def _limit(name: str, value: object) -> float:
    if not (found := seconds(cast(Duration, value), name=name)):
        raise ConfigurationError(f"{name}={value!r} leaves no time at all: give more than 0, as '30s'.")
    return found


def _seconds(name: str, value: object) -> float:
    return seconds(cast(Duration, value), name=name)


def _lease(name: str, value: object) -> float:
    found = _seconds(name, value)
    if found < 0.1:
        raise ConfigurationError(f"{name}={value!r} is too short to be renewed in time: give 1s or more.")
    return found


def _stall(name: str, value: object) -> float:
    found = _seconds(name, value)
    if 0 < found < 0.05:
        raise ConfigurationError(f"{name}={value!r} is shorter than a busy event loop's rounds: give 0.05 or more.")
    return found


def _positive(name: str, value: object) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigurationError(f"{name}={value!r} is not a whole number of 1 or more: give one, as 3.")
    return number


def _count(name: str, value: object) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigurationError(f"{name}={value!r} is not a whole number of 0 or more: give one, as 4.")
    return number


def _flag_or_text(name: str, value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return words[value.lower()] if isinstance(value, str) and value.lower() in words else flag(name, value)


def _accept(name: str, value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else cast(Iterable[object], value)
    return tuple(codec(name, each.strip() if isinstance(each, str) else each) for each in given)


def _tz(name: str, value: object) -> str:
    try:
        Zone(cast(str, value))
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("tz=", f"{name}=", 1)) from None
    return cast(str, value)


def _url(name: str, value: object) -> str:
    try:
        return Address.parse(cast(str, value)).url
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


_APP: Final[dict[str, Check]] = {
    "namespace": queue_name,
    "lease": _lease,
    "grace": _seconds,
    "max_crashes": _positive,
    "max_payload": _positive,
    "result_url": _url,
    "result_ttl": duration_ms,
    "ignore_result": _flag_or_text,
    "time_limit": _limit,
    "soft_time_limit": _limit,
    "durability": durability,
    "durability_timeout": _limit,
    "serializer": codec,
    "accept": _accept,
    "timeout": _limit,
    "tz": _tz,
    "events": _count,
    "stall": _stall,
    "pool_size": _count,
    "signing_keys": signing_keys,
}


def app_options(given: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> AppOptions:
    """Settings from the arguments, else from STREAMQ_*, else the defaults.

    Raises `ConfigurationError`, which names the argument or the variable.
    """
    values: dict[str, Any] = {}
    for name in given:
        if name not in _APP and name not in RETRY_NAMES:
            raise unknown_option(name, {**_APP, **dict.fromkeys(RETRY_NAMES)}, "setting of StreamQ")
    for name, check in _APP.items():
        variable = f"STREAMQ_{name.upper()}"
        if given.get(name) is not None:
            values[name] = check(name, given[name])
        elif environ.get(variable):
            values[name] = check(variable, environ[variable])
    options = AppOptions(**values)
    soft_below_hard(options.soft_time_limit, options.time_limit)
    if options.serializer not in options.accept:
        raise ConfigurationError(
            f"serializer={options.serializer!r} is not in accept={options.accept!r}: its workers would refuse it."
        )
    return options


def payload_codec(value: object) -> PayloadCodec:
    """What encodes arguments and results. Raises `ConfigurationError`."""
    if callable(getattr(value, "encode", None)) and callable(getattr(value, "decode", None)):
        return cast(PayloadCodec, value)
    raise ConfigurationError(
        f"codec is a {type(value).__qualname__}: give an object with encode(bytes) and decode(bytes), which give bytes."
        " What arguments are serialised as is another setting: serializer."
    )


def retry_policy(given: Mapping[str, object], base: RetryPolicy | None = None) -> RetryPolicy:
    """The retries of a task, or of a whole application. Raises `ConfigurationError`."""
    said = {name: value for name, value in given.items() if name in RETRY_NAMES}
    if "max_retries" in said and said["max_retries"] is None:  # Celery: no limit
        del said["max_retries"]
        said["retry_kwargs"] = {"max_retries": None, **cast(dict[str, object], said.get("retry_kwargs") or {})}
    return RetryPolicy.of(base=base, **cast(Any, said))


_TASK: Final[dict[str, tuple[str, Check]]] = {
    "queue": ("queue", queue_name),
    "priority": ("priority", priority),
    "executor": ("executor", executor),
    "time_limit": ("time_limit", _limit),
    "soft_time_limit": ("soft_time_limit", _limit),
    "result_ttl": ("result_ttl", duration_ms),
    "result_expires": ("result_ttl", duration_ms),
    "ignore_result": ("ignore_result", flag),
    "expires": ("expires", lambda name, value: limit_ms(name, value) / 1000),
    "acks_early": ("acks_early", flag),
    "acks_on_failure": ("acks_on_failure", flag),
    "log_args": ("log_args", flag),
    "headers": ("headers", headers),
}
_KNOWN: Final = {**_TASK, **dict.fromkeys(TaskSettings.__annotations__), **dict.fromkeys(RETRY_NAMES)}


def task_options(given: Mapping[str, object], retries: RetryPolicy | None = None) -> TaskOptions:
    """A task's options; `retries` are the application's defaults. Raises `ConfigurationError`."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _KNOWN:
            raise unknown_option(name, _KNOWN, "task option")
        if name in _TASK and value is not None:
            target, check = _TASK[name]
            values[target] = check(name, value)
        if name in HOOKS and not callable(value):
            raise ConfigurationError(f"{name}={value!r} cannot be called: give a function that takes an Event.")
    options = TaskOptions(retry=retry_policy(given, retries), **values)
    soft_below_hard(options.soft_time_limit, options.time_limit)
    return options
