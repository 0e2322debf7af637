"""What Prometheus reads. Labels are queues, states and a few fixed words: never a job, a task or an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamq.worker.status import Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Series = Iterator[tuple[str, float]]


def exposition(
    status: Status, *, ready: bool, children: Mapping[str, int] | None = None, restarts: Mapping[str, int] | None = None
) -> str:
    """The text of `/metrics`: one process, or all that `status` sums up. A process alone has no `children`."""
    families: list[tuple[str, str, str, Series]] = [
        ("ready", "gauge", "1 if jobs are taken by all processes.", _one(float(ready))),
        ("jobs_running", "gauge", "Jobs that run now.", _by("queue", status.running)),
        ("jobs_finished_total", "counter", "Attempts that ended, by how.", _finished(status)),
        ("job_seconds", "summary", "How long attempts ran.", _timed(status)),
        ("loop_lag_seconds", "gauge", "How late an event loop was, the worst of the last 15 s.", _one(status.lag)),
        ("resident_memory_bytes", "gauge", "Memory of the worker processes.", _one(status.rss)),
    ]
    if children is not None:
        families.append(("children", "gauge", "Worker processes under the supervisor.", _by("state", children)))
        families.append(("restarts_total", "counter", "Processes that were replaced.", _by("reason", restarts or {})))
    return "".join(_family(*family) for family in families)


def _family(name: str, kind: str, about: str, series: Series) -> str:
    lines = [f"streamq_{name}{labels} {value:.15g}" for labels, value in series]
    return "\n".join([f"# HELP streamq_{name} {about}", f"# TYPE streamq_{name} {kind}", *lines, ""])


def _one(value: float) -> Series:
    yield "", value


def _by(label: str, values: Mapping[str, int]) -> Series:
    for name, value in sorted(values.items()):
        yield _labels(**{label: name}), value


def _finished(status: Status) -> Series:
    for queue, states in sorted(status.finished.items()):
        for state, count in sorted(states.items()):
            yield _labels(queue=queue, state=state), count


def _timed(status: Status) -> Series:
    for queue, (count, seconds) in sorted(status.timed.items()):
        yield f"_sum{_labels(queue=queue)}", seconds
        yield f"_count{_labels(queue=queue)}", count


def _labels(**values: str) -> str:
    shown = (f'{name}="{_escaped(value)}"' for name, value in values.items())
    return f"{{{','.join(shown)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
