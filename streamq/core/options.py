"""Settings as values: of an application, and of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from streamq.core.codec import PayloadCodec
from streamq.core.limits import DEFAULT_MAX_PAYLOAD
from streamq.core.retry import RetryPolicy
from streamq.core.signing import Keyring

PRIORITIES: Final = range(10)
DEFAULT_QUEUE: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a task's decorator said, validated. Durations are seconds, `result_ttl` is milliseconds."""

    queue: str = ""  # empty: routed by name, else "default"
    priority: int | None = None  # None: the route's, else 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    time_limit: float | None = None
    soft_time_limit: float | None = None
    result_ttl: int | None = None  # ms; None: the application's
    ignore_result: bool | None = None  # None: the application's
    expires: float | None = None
    acks_early: bool = False
    acks_on_failure: bool = True
    log_args: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    executor: str = ""  # empty: "loop" for async def, "thread" for def


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """Application settings. All workers of a queue must agree on the lease. Durations are seconds."""

    namespace: str = "streamq"
    lease: float = 30.0
    grace: float = 25.0
    max_crashes: int = 3
    max_payload: int = DEFAULT_MAX_PAYLOAD
    result_url: str = ""  # where finished records are kept; empty: beside the queue
    result_ttl: int = 3_600_000  # ms
    ignore_result: bool = False
    time_limit: float | None = None  # of tasks that have none of their own
    soft_time_limit: float | None = None
    durability: str = "memory"
    durability_timeout: float = 5.0
    serializer: str = "msgpack"
    accept: tuple[str, ...] = ("msgpack", "json")
    timeout: float = 30.0  # how long one call may try to reach Redis
    tz: str = "UTC"
    events: int = 10_000  # transitions that each queue remembers; 0: none
    stall: float = 1.0  # how long the event loop may stand still before the log names who holds it; 0: for ever
    pool_size: int = 0  # child processes at once; 0: one for each core
    signing_keys: Keyring | None = None  # None: jobs are neither signed nor verified
    codec: PayloadCodec | None = field(default=None, repr=False)  # of arguments and results; it may hold keys
