"""The tables of docs/scaling.md: what servers, shards and workers carry, from the measured cost of a job."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.results import Environment, Results, number
from benchmarks.targets import OWN

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PLANNED = 0.7  # of a core: towards its end jobs wait, and Redis has other work too
SECOND = 1e6  # us
JOBS = {"none (a no-op)": 0.0, "1 ms": 1e3, "10 ms": 1e4, "100 ms": 1e5}  # us of CPU of their own
CREW = 100  # workers
HOUR = 3_600 * 1_000  # jobs, at 1,000 a second
GB, MIB = 1e9, 2**20
UNKNOWN = math.nan  # so is what is made of it, and it is shown as "-"

Row = tuple[str, ...]


def fill(results: Results, page: Path) -> None:
    """Put the tables between the two marks of the page, if there is one. Raises ValueError if it lacks a mark."""
    if not page.exists():  # a report that is written elsewhere
        return
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} lacks {END if begin else BEGIN}")
    page.write_text("\n".join([before + begin, *_block(results), end + after]), encoding="utf-8")


def _block(results: Results) -> Iterator[str]:
    yield from dict.fromkeys(_measured(session.environment) for session in results.sessions)
    yield f"Medians, filled in by `python -m benchmarks report`. *To plan with*: {100 * PLANNED:g} % of one core.\n"
    loaded, alone = (_median(results, name, "server_cpu_us") for name in ("end_to_end", "alone"))
    yield from _server(results, loaded, alone)
    yield from _workers(_median(results, "drain_100", "worker_cpu_us"), loaded, alone)
    yield from _idle(results, alone)
    yield from _memory(results)
    yield from _shards(results, loaded)
    crews, queues = (1, 2, 3, 4), (1, 4, 16)
    yield from _table(
        ("worker processes, on the cores of this one machine", *map(str, crews)),
        _steps("no-op jobs/s", results, "workers_", crews, "per_second"),
        _steps("jobs/s of 100 us CPU", results, "workers_cpu_", crews, "per_second"),
    )
    yield from _table(
        ("queues of one worker process", *map(str, queues)),
        _steps("no-op jobs/s", results, "queues_", queues, "per_second"),
        _steps("server commands a job", results, "queues_", queues, "server_commands"),
    )


def _measured(found: Environment) -> str:
    quick = ", a quick look with fewer jobs" if found.quick else ""
    return f"Measured on {found.date[:10]}{quick}: {found.machine}, {found.cores} cores, {found.server}."


def _server(results: Results, loaded: float, alone: float) -> Iterator[str]:
    costs = {
        "worked on, in full turns (`drain_100`)": _median(results, "drain_100", "server_cpu_us"),
        "enqueued and worked on, under load (`end_to_end`)": loaded,
        "enqueued and worked on, each alone (`alone`)": alone,
    }
    yield from _table(
        ("a no-op job", "server CPU", "one core carries", "to plan with"),
        *((what, _said(us, " us"), _said(SECOND / us, "/s"), _said(_carried(us), "/s")) for what, us in costs.items()),
    )


def _carried(us: float) -> float:
    """Jobs a second that one server is planned for."""
    return PLANNED * SECOND / us


def _workers(worker: float, loaded: float, alone: float) -> Iterator[str]:
    """From the worst, where each job travels alone, to the best."""
    limits = _carried(alone), _carried(loaded)
    rows: list[Row] = []
    for name, own in JOBS.items():
        rate = SECOND / (worker + own)
        enough = [limit / rate for limit in limits]
        crew = [UNKNOWN if math.isnan(limit + rate) else min(limit, CREW * rate) for limit in limits]
        rows.append(
            (name, _said(rate, "/s"), _between(map(_whole, enough)), _between(_said(each, "/s") for each in crew))
        )
    heads = (
        "a job's own CPU",
        "one worker process carries",
        "so many workers fill one server",
        f"{CREW} workers carry",
    )
    yield from _table(heads, *rows)


def _idle(results: Results, alone: float) -> Iterator[str]:
    commands = _median(results, "idle", "commands_per_second")
    cpu = commands * alone / _median(results, "alone", "server_commands") / SECOND * 100
    memory = _median(results, "idle", "rss_mib") * MIB / GB
    yield from _table(
        ("idle workers of one queue", "1", f"{CREW}"),
        *(
            (what, _said(each, unit), _said(CREW * each, unit))
            for what, each, unit in (
                ("server commands a second", commands, ""),
                ("of one core of the server, at the cost of a command in `alone`", cpu, " %"),
                ("memory of the workers", memory, " GB"),
            )
        ),
    )


def _memory(results: Results) -> Iterator[str]:
    sizes = {name: _median(results, "memory", f"bytes_{name}") for name in ("queued", "finished")}
    yield from _table(
        ("a no-op job", "bytes of Redis", "1 GB holds", "an hour at 1,000 jobs/s"),
        *((name, _said(size), _said(GB / size), _said(HOUR * size / GB, " GB")) for name, size in sizes.items()),
    )


def _shards(results: Results, loaded: float) -> Iterator[str]:
    """The ratios are those of the sessions, as everywhere."""
    rows: list[Row] = []
    for shards in (1, 2, 3):
        name = f"cluster_{shards}"
        both = [
            [each.spread(scenario, OWN, "per_second") for scenario in ("cluster_1", name)] for each in results.sessions
        ]
        ratios = [after.median / before.median for before, after in both if before and after and before.median]
        times = statistics.median(ratios) if ratios else UNKNOWN
        rate, busy = _median(results, name, "per_second"), _median(results, name, "server_busy")
        rows.append(
            (f"{shards}", _said(rate, "/s"), _said(times, " x"), _said(busy), _said(times * _carried(loaded), "/s"))
        )
    heads = ("shards", "at a tenth of a core each", "times one shard", "part of it used", "whole cores, to plan with")
    yield from _table(heads, *rows)


def _steps(label: str, results: Results, prefix: str, steps: Sequence[int], figure: str) -> Row:
    return label, *(_said(_median(results, f"{prefix}{step}", figure)) for step in steps)


def _median(results: Results, scenario: str, figure: str) -> float:
    """Of streamq; unknown if it was not measured, or is nothing."""
    found = results.spread(scenario, OWN, figure)
    return found.median if found and found.median else UNKNOWN


def _said(value: float, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{number(value)}{unit}"


def _whole(value: float) -> str:
    """Of what there are no halves, rounded up."""
    return "-" if math.isnan(value) else f"{math.ceil(value):,}"


def _between(said: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(said))


def _table(heads: Row, *rows: Row) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
