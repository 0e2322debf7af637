"""What streamq has to reach, and whether it does. Ratios are taken between medians of one session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results import HIGHER, LIMITS, Results, Session, number

OWN = "streamq"
PYTHON = "the best Python peer"  # of those that store results, as streamq does
PEER = "the best peer"  # with or without stored results


@dataclass(frozen=True)
class Target:
    """The best of `scenarios` counts. The bars are of the ratio to `against`, or of the figure if that is empty."""

    what: str
    scenarios: tuple[str, ...]
    figure: str
    against: str
    first: float
    goal: float
    base: tuple[str, ...] = ()  # scenarios of the other side, if not the same
    unit: str = ""  # of the figure

    @property
    def higher(self) -> bool:
        return self.figure in HIGHER


@dataclass(frozen=True)
class Measured:
    """`value` is what the bars are compared with."""

    value: float
    own: float
    rival: str = ""
    other: float = 0.0


_DRAIN, _RATE = ("drain_32", "drain_100"), "per_second"
TARGETS = (
    Target("drain, best of c=32 and c=100", _DRAIN, _RATE, PYTHON, 15, 25, unit="/s"),
    Target("drain, best of c=32 and c=100", _DRAIN, _RATE, "bullmq", 2, 3, unit="/s"),
    Target("drain, best of c=32 and c=100", _DRAIN, _RATE, "raw", 0.3, 0.5, unit="/s"),
    Target("end to end", ("end_to_end",), _RATE, PYTHON, 8, 15, unit="/s"),
    Target("end to end", ("end_to_end",), _RATE, "bullmq", 1.3, 2, unit="/s"),
    Target("worker CPU a no-op job, drain c=100", ("drain_100",), "worker_cpu_us", "", 25, 15, unit=" us"),
    Target("server CPU a no-op job, drain c=100", ("drain_100",), "server_cpu_us", "", 25, 15, unit=" us"),
    Target("enqueue, sequential", ("enqueue_sequential",), _RATE, "raw", 0.75, 0.9, unit="/s"),
    Target("enqueue, 100 concurrent", ("enqueue_concurrent",), _RATE, "bullmq", 1.5, 3, unit="/s"),
    Target("enqueue, 100 concurrent", ("enqueue_concurrent",), _RATE, PYTHON, 4, 8, unit="/s"),
    Target("enqueue, bulk", ("enqueue_bulk",), _RATE, "bullmq", 4, 8, unit="/s"),
    Target("start latency p50, idle worker", ("latency",), "p50_ms", PEER, 1, 0.8, unit=" ms"),
    Target("start latency p99, idle worker", ("latency",), "p99_ms", PEER, 1, 0.8, unit=" ms"),
    Target("round trip p50", ("round_trip",), "p50_ms", PEER, 0.8, 0.5, unit=" ms"),
    Target("round trip p99", ("round_trip",), "p99_ms", PEER, 0.8, 0.5, unit=" ms"),
    Target("delayed, lateness p50", ("delayed",), "p50_ms", "", 3, 1.5, unit=" ms"),
    Target("delayed, lateness p99", ("delayed",), "p99_ms", "", 15, 5, unit=" ms"),
    Target("I/O jobs, part of the ideal", ("io",), "part_of_ideal", "", 0.95, 0.98),
    Target("Redis memory a queued no-op job", ("memory",), "bytes_queued", "", 200, 160, unit=" B"),
    Target("idle worker, Redis commands a second", ("idle",), "commands_per_second", "", 2, 1, unit="/s"),
    Target("first jobs of 1,000,000", ("growth_1m",), _RATE, OWN, 0.9, 0.97, ("growth_10k",), "/s"),
    Target("two workers, 100 us CPU a job", ("workers_cpu_2",), _RATE, OWN, 1.5, 1.8, ("workers_cpu_1",), "/s"),
)  # fmt: skip


def measure(target: Target, results: Results) -> Measured | None:
    """Against the rival that leaves the worst ratio, which in one session is the best rival. None: not measured."""
    worst = min if target.higher else max
    found = [each for rival in _rivals(target, results) if (each := _against(rival, target, results))]
    return worst(found, key=lambda each: each.value) if found else None


def _rivals(target: Target, results: Results) -> list[str]:
    peers = [name for name in results.contenders if name not in LIMITS | {OWN}]
    kinds = {PYTHON: [name for name in peers if name != "bullmq" and results.stored(name)], PEER: peers}
    return kinds.get(target.against, [target.against])


def _against(rival: str, target: Target, results: Results) -> Measured | None:
    """The middle one of the sessions' ratios; of two, the worse."""
    found = sorted(
        (each for session in results.sessions for each in _pairs(rival, target, session)), key=lambda each: each.value
    )
    middle = (len(found) - 1) // 2 if target.higher else len(found) // 2
    return found[middle] if found else None


def _pairs(rival: str, target: Target, session: Session) -> Iterator[Measured]:
    own = _best(session, target.scenarios, OWN, target)
    if own is not None and not rival:
        yield Measured(own, own)
    elif own is not None and (other := _best(session, target.base or target.scenarios, rival, target)):
        yield Measured(own / other, own, rival, other)


def _best(session: Session, scenarios: tuple[str, ...], contender: str, target: Target) -> float | None:
    spreads = (session.spread(name, contender, target.figure) for name in scenarios)
    medians = [each.median for each in spreads if each]
    return (max if target.higher else min)(medians) if medians else None


def verdict(target: Target, measured: Measured | None) -> str:
    """`met`, `first bar`, `missed by N %` (of the first bar), or `not measured`."""
    if measured is None:
        return "not measured"
    sign = 1 if target.higher else -1
    if sign * (measured.value - target.goal) >= 0:
        return "met"
    short = sign * (target.first - measured.value) / target.first
    return f"missed by {number(100 * short)} %" if short > 0 else "first bar"
