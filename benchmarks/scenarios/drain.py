"""How fast workers get through jobs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

from benchmarks.stage import Figures, Stage

NAP = 0.05  # seconds
PROBED = 20_000  # jobs of a long queue whose rate is taken


def drain(stage: Stage) -> Figures:
    """Jobs queued before the worker starts: from the first start to the last acknowledgement."""
    stage.drive("fill")
    return _watched(stage, stage.start_workers)


def queues(count: int) -> Callable[[Stage], Figures]:
    """The same jobs in several queues of one worker, which have the same weight."""

    def run(stage: Stage) -> Figures:
        stage.env["BENCH_QUEUES"] = ",".join(f"queue-{number}" for number in range(count))
        return drain(stage)

    return run


def workers(count: int, verb: str) -> Callable[[Stage], Figures]:
    """The same with several workers, which are up and stand still while the queue is filled."""

    def run(stage: Stage) -> Figures:
        stage.start_workers(count)
        stage.warm()
        for worker in stage.workers:
            worker.settle()
        stage.send(signal.SIGSTOP)
        stage.drive(verb)
        return _watched(stage, partial(stage.send, signal.SIGCONT))

    return run


def _watched(stage: Stage, go: Callable[[], object]) -> Figures:
    watch = stage.start_driver("watch")
    watch.settle()
    go()
    stage.wait_for_first_start()
    spent = stage.meter()
    found = stage.answer(watch)
    return {"per_second": stage.jobs / (found["acknowledged"] - found["first"])} | spent()


def end_to_end(stage: Stage) -> Figures:
    """Jobs from 100 coroutines to an idle worker: from before the first enqueue to the last acknowledgement."""
    stage.start_workers()
    stage.warm()
    spent = stage.meter()
    found = stage.answer(stage.start_driver("end_to_end"))
    return {"per_second": stage.jobs / (found["acknowledged"] - found["begun"])} | spent()


def naps(stage: Stage) -> Figures:
    """Jobs that wait, as jobs do that ask other services: how much of the concurrency is used."""
    stage.drive("naps")
    watch = stage.start_driver("watch")
    watch.settle()
    stage.start_workers()
    found = stage.answer(watch)
    rate = stage.jobs / (found["last_start"] + NAP - found["first"])
    return {"per_second": rate, "part_of_ideal": rate / (stage.concurrency / NAP)}


def growth(stage: Stage) -> Figures:
    """How fast the first jobs of a long queue start."""
    stage.drive("fill")
    stage.start_workers()
    probed = min(stage.jobs, PROBED)
    stage.wait_for_starts(probed)
    starts = stage.starts[:probed].tolist()
    return {"per_second": (probed - 1) / (max(starts) - min(starts))}
