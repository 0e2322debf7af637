"""Enqueueing, without a worker."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.stage import Figures, Stage


def enqueue(verb: str) -> Callable[[Stage], Figures]:
    """From one coroutine, from 100, or with the bulk call: what the verb says."""

    def run(stage: Stage) -> Figures:
        spent = stage.meter()
        found = stage.drive(verb)
        return {"per_second": found["per_second"], "driver_cpu_us": found["cpu_us"]} | spent()

    return run
