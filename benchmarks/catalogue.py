"""How the scenarios are shown: which belong together, what their columns are called, and what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.plots import Row, bars, ranges

Figures = dict[str, str]  # figure -> what its column is called; the first is the main one
CPU = {"driver_cpu_us": "producer CPU us", "worker_cpu_us": "worker CPU us", "server_cpu_us": "server CPU us"}
CALLS = {"client_calls": "Redis calls", "redis_calls": "Redis calls", "server_commands": "server commands"}
RATE: Figures = {"per_second": "jobs/s"} | CPU | CALLS
PER_JOB: Figures = {
    "per_second": "jobs/s",
    "server_cpu_us": "server CPU us a job",
    "worker_cpu_us": "worker CPU us a job",
    "server_commands": "server commands a job",
}
TAIL: Figures = {"p50_ms": "p50 ms", "p99_ms": "p99 ms", "p999_ms": "p99.9 ms", "per_second": "arrivals/s"}


@dataclass(frozen=True)
class Group:
    """Scenarios with the same figures, each with a table."""

    title: str
    text: str
    figures: Figures
    scenarios: dict[str, str]  # name -> heading
    plot: Callable[[str, str, Sequence[Row]], str] | None = None
    drawn: tuple[str, ...] = ()  # figures
    unit: str = ""  # of what is drawn


@dataclass(frozen=True)
class Scale:
    """One scenario at several sizes, in one table: a line for each contender and figure."""

    title: str
    text: str
    steps: dict[str, str]  # end of the scenario's name -> heading
    lines: tuple[tuple[str, str, str], ...]  # beginning of the scenario's name, figure, label
    plot: str = ""  # its name, if there is one


GROUPS = (
    Group(
        "Enqueueing",
        "No-op jobs, no worker. CPU, calls and commands are those of a job.",
        RATE,
        {
            "enqueue_sequential": "Enqueue, one after the other",
            "enqueue_concurrent": "Enqueue, 100 coroutines",
            "enqueue_bulk": "Enqueue, the bulk call",
        },
        bars,
        ("per_second",),
        "jobs/s",
    ),
    Group(
        "Throughput",
        "No-op jobs (two integers in, one out), one worker process. Drain: queued before the worker starts, first "
        "start to last acknowledgement. End to end: 100 coroutines enqueue for an idle worker, first enqueue to last "
        "acknowledgement.",
        RATE,
        {"drain_32": "Drain, concurrency 32", "drain_100": "Drain, concurrency 100", "end_to_end": "End to end"},
        bars,
        ("per_second",),
        "jobs/s",
    ),
    Group(
        "Latency",
        "An idle worker. Latency: before the enqueue to the start of the job, one job at a time, 5 ms apart. Round "
        "trip: to the awaited result. Delayed: 1,000 jobs due at regular steps, start minus due.",
        TAIL,
        {"latency": "Start latency", "round_trip": "Round trip", "delayed": "Delayed jobs, lateness"},
        ranges,
        ("p50_ms", "p99_ms", "p999_ms"),
        "ms",
    ),
    Group(
        "Latency under load",
        "Jobs arrive at a steady rate, a share of what the same contender drains end to end; start minus the time at "
        "which the job was to be sent, so that no wait is left out.",
        TAIL,
        {"load_50": "Latency at half of its own rate", "load_80": "Latency at 80 % of its own rate"},
        ranges,
        ("p50_ms", "p99_ms", "p999_ms"),
        "ms",
    ),
    Group(
        "Jobs that wait for others",
        "Jobs sleep 50 ms; concurrency 100, so that 2,000 a second are the ideal.",
        {"per_second": "jobs/s", "part_of_ideal": "part of the ideal"},
        {"io": "I/O jobs"},
    ),
    Group(
        "What it takes",
        "Memory: bytes of Redis a no-op job, and calls from clients while it is worked on. Idle: one worker, an empty "
        "queue. Alone: one job at a time, 5 ms apart, the enqueueing included.",
        {
            "bytes_queued": "B queued",
            "bytes_finished": "B finished",
            "commands_per_second": "commands/s",
            "rss_mib": "worker MiB",
        }
        | CPU
        | CALLS,
        {"memory": "Memory", "idle": "Idle worker", "alone": "Jobs that arrive alone"},
    ),
)
SCALES = (
    Scale(
        "Growth",
        "The first jobs of a long queue.",
        {"10k": "10,000 queued", "100k": "100,000 queued", "1m": "1,000,000 queued"},
        (("growth_", "per_second", "jobs/s"),),
        "growth",
    ),
    Scale(
        "Worker processes",
        "The same queue with more workers. They share the cores with the server and the producer.",
        {str(count): f"{count} worker{'s' * (count > 1)}" for count in (1, 2, 3, 4)},
        (("workers_", "per_second", "no-op jobs"), ("workers_cpu_", "per_second", "jobs of 100 us CPU")),
        "workers",
    ),
    Scale(
        "Queues",
        "The same number of jobs in one, four and sixteen queues of one worker process, with equal weights.",
        {"1": "1 queue", "4": "4 queues", "16": "16 queues"},
        tuple(("queues_", figure, label) for figure, label in PER_JOB.items()),
    ),
    Scale(
        "Cluster",
        "The same work over one, two and three shards of a Redis Cluster, each with one worker. Each master is held to "
        "a tenth of one core, so that the shards are the limit and not the machine: only the ratios count. Server "
        "busy: the part of that tenth which was used.",
        {str(count): f"{count} shard{'s' * (count > 1)}" for count in (1, 2, 3)},
        tuple(("cluster_", figure, label) for figure, label in (PER_JOB | {"server_busy": "server busy"}).items()),
    ),
)
PLOTS = {name for group in GROUPS if group.plot for name in group.scenarios} | {
    each.plot for each in SCALES if each.plot
}
