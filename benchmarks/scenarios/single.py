"""How long jobs wait: one at a time, at a time of their own, and under load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.stage import Figures, Stage


def quantiles(times: Sequence[float]) -> Figures:
    """The median and the tail; the tail's tail only of a sample that has one."""
    ordered = sorted(times)
    tail = {"p99_ms": 0.99, "p999_ms": 0.999} if len(ordered) >= 1_000 else {"p99_ms": 0.99}
    return {"p50_ms": statistics.median(ordered)} | {name: ordered[int(len(ordered) * q)] for name, q in tail.items()}


def latency(stage: Stage) -> Figures:
    """From before the enqueue to the start of the job, one job at a time."""
    return _warmed_up(stage, "latency", "start_ms")


def round_trip(stage: Stage) -> Figures:
    """From before the enqueue to the awaited result, one job at a time."""
    return _warmed_up(stage, "round_trip", "round_trip_ms")


def _warmed_up(stage: Stage, verb: str, key: str) -> Figures:
    stage.start_workers()
    stage.warm()
    times = stage.drive(verb)[key]
    return quantiles(times[len(times) // 10 :])  # the first tenth warms up


def delayed(stage: Stage) -> Figures:
    """Jobs due at regular steps: start minus due."""
    stage.start_workers()
    stage.warm()
    return quantiles(stage.drive("delayed")["late_ms"])


def load(stage: Stage) -> Figures:
    """Jobs that arrive at a steady rate, whatever the worker does: start minus the time they were to be sent at."""
    return {"per_second": stage.rate} | _warmed_up(stage, "load", "start_ms")
