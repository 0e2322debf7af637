"""What a process counts, what several of them are together, and how Prometheus reads it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from streamq import JobFailed, State
from streamq.worker.metrics import exposition
from streamq.worker.status import Status, Tally, total
from tests.conftest import MakeApp

FIRST = Status(
    ready=True,
    running={"io": 2},
    finished={"io": {"SUCCESS": 5, "RETRY": 1}},
    timed={"io": (5, 2.5)},
    lag=0.25,
    rss=1_000,
)
SECOND = Status(
    running={"io": 1, 'we"ird\\': 3},
    finished={"io": {"SUCCESS": 1}, 'we"ird\\': {"FAILURE": 1}},
    timed={"io": (1, 0.5)},
    lag=0.5,
    rss=500,
)
TEXT = r"""# HELP streamq_ready 1 if jobs are taken by all processes.
# TYPE streamq_ready gauge
streamq_ready 0
# HELP streamq_jobs_running Jobs that run now.
# TYPE streamq_jobs_running gauge
streamq_jobs_running{queue="io"} 3
streamq_jobs_running{queue="we\"ird\\"} 3
# HELP streamq_jobs_finished_total Attempts that ended, by how.
# TYPE streamq_jobs_finished_total counter
streamq_jobs_finished_total{queue="io",state="RETRY"} 1
streamq_jobs_finished_total{queue="io",state="SUCCESS"} 6
streamq_jobs_finished_total{queue="we\"ird\\",state="FAILURE"} 1
# HELP streamq_job_seconds How long attempts ran.
# TYPE streamq_job_seconds summary
streamq_job_seconds_sum{queue="io"} 3
streamq_job_seconds_count{queue="io"} 6
# HELP streamq_loop_lag_seconds How late an event loop was, the worst of the last 15 s.
# TYPE streamq_loop_lag_seconds gauge
streamq_loop_lag_seconds 0.5
# HELP streamq_resident_memory_bytes Memory of the worker processes.
# TYPE streamq_resident_memory_bytes gauge
streamq_resident_memory_bytes 1500
# HELP streamq_children Worker processes under the supervisor.
# TYPE streamq_children gauge
streamq_children{state="ready"} 1
streamq_children{state="starting"} 1
# HELP streamq_restarts_total Processes that were replaced.
# TYPE streamq_restarts_total counter
streamq_restarts_total{reason="ended"} 2
"""


def test_several_processes_are_one() -> None:
    children = {"ready": 1, "starting": 1}
    assert exposition(total([FIRST, SECOND]), ready=False, children=children, restarts={"ended": 2}) == TEXT


def test_a_process_alone_has_no_children() -> None:
    assert "children" not in exposition(FIRST, ready=True)


def test_a_tally_is_worn_once_and_only_when_a_batch_has_ended() -> None:
    told: list[str] = []
    tally = Tally(max_jobs=3, on_worn=lambda: told.append(tally.worn))
    for _ in range(5):
        tally.ended("io", "SUCCESS", 10)
    assert told == []
    tally.batch_ended()
    tally.batch_ended()
    assert told == ["max-jobs"]


@pytest.mark.parametrize(("limit", "worn"), [(1 << 50, ""), (1, "max-memory")])
def test_memory_is_looked_at_after_a_batch(limit: int, worn: str) -> None:
    tally = Tally(max_memory=limit)
    tally.batch_ended()
    assert tally.worn == worn


async def test_a_worker_counts_what_ends_by_queue_and_state(app: MakeApp) -> None:
    here, tally = app(lease="1s"), Tally()

    @here.task
    async def good() -> None: ...

    @here.task(acks_early=True, queue="other")
    async def bad() -> None:
        raise ValueError

    async with here, here.worker(queues=["default", "other"]) as worker:
        assert worker.crew is not None
        worker.crew.reports.tally = tally
        for task in good, good, bad:
            job = await task.enqueue()
            with suppress(JobFailed):
                await job.result(timeout=5)
    assert {queue: dict(states) for queue, states in tally.finished.items()} == {
        "default": {State.SUCCESS: 2},
        "other": {State.FAILURE: 1},
    }
    assert tally.jobs == 3
