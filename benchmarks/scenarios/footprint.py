"""What is used when little happens: memory of jobs, an idle worker, a job that arrives alone."""

from __future__ import annotations

import time

from benchmarks.stage import Figures, Stage

SETTLING, WATCHED = 5.0, 10.0  # seconds


def memory(stage: Stage) -> Figures:
    """Bytes of Redis a queued and a finished job, without what an empty system keeps; and calls from clients a job.

    Each reading is taken when workers and drivers have gone.
    """
    stage.server.keep_no_histograms()
    stage.start_workers()
    stage.warm()
    stage.end_workers()
    empty = stage.server.memory()
    stage.drive("fill")
    queued = stage.server.memory()
    watch = stage.start_driver("watch")
    watch.settle()
    with stage.server.monitored() as monitor:
        stage.start_workers()
        stage.wait_for_first_start()
        calls = monitor.calls
        stage.answer(watch)
        calls = monitor.settled() - calls
    watch.stop()
    stage.end_workers()
    return {
        "bytes_queued": (queued - empty) / stage.jobs,
        "bytes_finished": (stage.server.memory() - empty) / stage.jobs,
        "redis_calls": calls / stage.jobs,
    }


def idle(stage: Stage) -> Figures:
    """One worker and an empty queue: commands a second as the server counts them, and resident memory."""
    stage.start_workers()
    stage.warm()
    time.sleep(SETTLING)
    before, start = stage.server.commands(), time.perf_counter()
    time.sleep(WATCHED)
    commands, took = stage.server.commands() - before, time.perf_counter() - start
    return {"commands_per_second": commands / took, "rss_mib": sum(worker.rss_mib() for worker in stage.workers)}


def alone(stage: Stage) -> Figures:
    """CPU and commands of jobs that come one at a time, the enqueueing included: nothing travels together."""
    stage.start_workers()
    stage.warm()
    spent = stage.meter()
    stage.drive("latency")
    return spent()
