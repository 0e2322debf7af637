"""Which failures are tried again, and after how long."""

from __future__ import annotations

import asyncio
import logging
import random as _random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypedDict, cast

from streamq.core.clock import Duration, seconds
from streamq.errors import ConfigurationError

logger = logging.getLogger("streamq.retry")

Failure = type[BaseException]
Delay = float | Callable[[int], float]
Backoff = bool | float | Literal["fixed"] | None

FOREVER: Final = 2**31 - 1  # "no limit" as a number: exact in Lua, and out of reach for any job
_NEVER: Final[tuple[Failure, ...]] = (
    asyncio.CancelledError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
)


class _Changes(TypedDict, total=False):
    max_retries: int
    default_delay: float | None
    backoff: Backoff
    backoff_max: float
    jitter: bool
    autoretry_for: tuple[Failure, ...]
    dont_autoretry_for: tuple[Failure, ...]
    delays: Mapping[Failure, Delay]


def _no_delays() -> dict[Failure, Delay]:
    return {}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A task's retries, checked and in seconds. `RetryPolicy.of` makes one of what a user wrote.

    `backoff` True waits 1, 2, 4 ... s, a number n waits n, 2n, 4n ... s, "fixed" waits `default_delay`
    (1 s if there is none) every time, False waits `default_delay` (or not at all). None, the default,
    waits `default_delay` every time if there is one, and is like True otherwise. `backoff_max` and
    `jitter` concern the growing forms only: a wait that was written down is kept as written.

        RetryPolicy(max_retries=5, backoff=True, jitter=False).delay(2)        # 4.0
    """

    max_retries: int = 3
    default_delay: float | None = None
    backoff: Backoff = None
    backoff_max: float = 600.0
    jitter: bool = True
    autoretry_for: tuple[Failure, ...] = ()
    dont_autoretry_for: tuple[Failure, ...] = ()
    delays: Mapping[Failure, Delay] = field(default_factory=_no_delays, hash=False)

    def wants(self, exc: BaseException) -> bool:
        """Whether this failure is retried without being asked; `dont_autoretry_for` wins.

        Cancellation, KeyboardInterrupt and SystemExit are never retried by policy.
        """
        if isinstance(exc, (*_NEVER, *self.dont_autoretry_for)):
            return False
        return isinstance(exc, (*self.autoretry_for, *self.delays))

    def delay(
        self,
        retries: int,
        exc: BaseException | None = None,
        *,
        random: Callable[[], float] = _random.random,
    ) -> float:
        """Seconds to wait before the next attempt, `retries` of them being spent already (0 at first).

        The delay of the failure's own class, or of the nearest class above it, comes first. Nothing is
        raised: a function in `delays` that fails is logged, and the backoff is used in its place.
        """
        if exc is not None:
            for kind in type(exc).__mro__:
                if kind in self.delays:
                    own = _own_delay(self.delays[kind], retries, kind)
                    return self._backoff(retries, random) if own is None else own
        return self._backoff(retries, random)

    def _backoff(self, retries: int, random: Callable[[], float]) -> float:
        match self.backoff:
            case "fixed":
                return 1.0 if self.default_delay is None else self.default_delay
            case False:
                return self.default_delay or 0.0
            case None if self.default_delay is not None:
                return self.default_delay
            case None | True:
                factor = 1.0
            case factor:
                pass
        # 2.0**1024 is an OverflowError; 2.0**1000 times any factor is at worst infinite, and capped.
        grown = min(factor * 2.0 ** min(max(retries, 0), 1000), self.backoff_max)
        return grown * random() if self.jitter else grown

    @classmethod
    def of(
        cls,
        *,
        base: RetryPolicy | None = None,
        max_retries: int | None = None,
        default_retry_delay: Duration | None = None,
        autoretry_for: Iterable[Failure] | Failure | None = None,
        dont_autoretry_for: Iterable[Failure] | Failure | None = None,
        retry_backoff: bool | Duration | None = None,
        retry_backoff_max: Duration | None = None,
        retry_jitter: bool | None = None,
        retry_kwargs: Mapping[str, object] | None = None,
        retry_delays: Mapping[Failure, Duration | Callable[[int], float]] | None = None,
    ) -> RetryPolicy:
        """A policy of options named as Celery names them; what is None is taken from `base`.

        `retry_kwargs` may hold `max_retries` (None: no limit) and `countdown`, and wins over the options
        of the same meaning. A delay given without `retry_backoff` replaces a growing backoff of `base`.
        Raises `ConfigurationError`.

            RetryPolicy.of(max_retries=5, autoretry_for=(OSError,), retry_backoff="2s")
        """
        changes = _Changes()
        if max_retries is not None:
            changes["max_retries"] = retry_count(max_retries, "max_retries")
        if default_retry_delay is not None:
            changes["default_delay"] = seconds(default_retry_delay, name="default_retry_delay")
        changes |= _from_retry_kwargs(retry_kwargs)
        if retry_backoff is not None:
            changes["backoff"] = _backoff_form(retry_backoff)
        elif "default_delay" in changes and not (base and base.backoff in ("fixed", False)):
            changes["backoff"] = None
        if retry_backoff_max is not None:
            changes["backoff_max"] = seconds(retry_backoff_max, name="retry_backoff_max")
        if retry_jitter is not None:
            changes["jitter"] = _flag(retry_jitter, "retry_jitter")
        if autoretry_for is not None:
            changes["autoretry_for"] = _failures(autoretry_for, "autoretry_for")
        if dont_autoretry_for is not None:
            changes["dont_autoretry_for"] = _failures(dont_autoretry_for, "dont_autoretry_for", cancels=True)
        if retry_delays is not None:
            changes["delays"] = _delays(retry_delays)
        return replace(base or cls(), **changes)


def _own_delay(delay: Delay, retries: int, kind: Failure) -> float | None:
    if not callable(delay):
        return delay
    try:
        return seconds(delay(retries), name=f"the delay for {kind.__name__}")
    except Exception:
        # Raised from here it would hide the failure that is being retried, and lose the job's outcome.
        logger.exception("retry_delays[%s] gave no delay for retry %d: the backoff is used", kind.__name__, retries)
        return None


def retry_count(value: object, name: str) -> int:
    """A number of retries, from 0 on. Raises `ConfigurationError` that speaks of the option `name`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name}={value!r} is not a number of retries: give a whole number, 0 for none.")
    return min(value, FOREVER)


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} is neither True nor False.")
    return value


def _backoff_form(value: bool | Duration) -> Backoff:
    if isinstance(value, bool):
        return value
    if value == "fixed":
        return "fixed"
    try:
        # Celery reads a factor of 0 as no backoff.
        return seconds(value, name="retry_backoff") or False
    except ConfigurationError as error:
        raise ConfigurationError(f'{error} Or True for 1, 2, 4 ... s, False for none, "fixed".') from None


def _from_retry_kwargs(given: Mapping[str, object] | None) -> _Changes:
    changes = _Changes()
    for key, value in _mapping(given or {}, "retry_kwargs").items():
        match key:
            case "max_retries":
                changes["max_retries"] = FOREVER if value is None else retry_count(value, "retry_kwargs['max_retries']")
            case "countdown":
                changes["default_delay"] = seconds(cast(Duration, value), name="retry_kwargs['countdown']")
            case _:
                raise ConfigurationError(
                    f"retry_kwargs[{key!r}] is not known: it may hold 'max_retries' and 'countdown'."
                )
    return changes


def _mapping(given: object, name: str) -> Mapping[object, object]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name}={given!r} is not a dict: give a value for each key, as {name}={{...}}.")
    return cast(Mapping[object, object], given)


def _failures(given: object, name: str, *, cancels: bool = False) -> tuple[Failure, ...]:
    kinds: tuple[object, ...]
    if isinstance(given, type):  # autoretry_for=(OSError) is a class, its parentheses are none
        kinds = (given,)
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        kinds = tuple(cast(Iterable[object], given))
    else:
        kinds = (given,)
    return tuple(_failure(kind, name, cancels=cancels) for kind in kinds)


def _failure(kind: object, name: str, *, cancels: bool = False) -> Failure:
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise ConfigurationError(
            f"{name}: {kind!r} is not an exception class. Give classes, as in {name}=(OSError, TimeoutError)."
        )
    if not cancels and issubclass(kind, _NEVER):
        raise ConfigurationError(f"{name}: {kind.__name__} ends a task from outside and is never retried.")
    return kind


def _delays(given: Mapping[Failure, Duration | Callable[[int], float]]) -> dict[Failure, Delay]:
    delays: dict[Failure, Delay] = {}
    for key, value in _mapping(given, "retry_delays").items():
        kind = _failure(key, "retry_delays")
        if callable(value):
            delays[kind] = cast(Callable[[int], float], value)
        else:
            delays[kind] = seconds(cast(Duration, value), name=f"retry_delays[{kind.__name__}]")
    return delays
