"""From what one run has shown to figures, and to what bounds it: pure, so that the rule can be tested."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

PROCESSES: Final = ("producer", "worker", "server")
BUSY: Final = 0.85  # of one core, or of all cores of the machine
EXPLAINS: Final = 0.5  # of the time

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. CPU times are in seconds; `cpu` is of producer, worker and server, as far as they ran and told it."""

    jobs: int
    seconds: float
    cpu: Mapping[str, float]
    server_thread: float | None = None  # of the server's thread that runs commands
    machine: float = 0.0  # of everything that ran on this machine's cores, as far as the system tells
    times: Sequence[float] = field(default_factory=tuple[float, ...])  # ms, of each job awaited


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What does not change from run to run. `here` are the processes that have this machine's cores."""

    ping_ms: float
    cores: int
    here: frozenset[str]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all runs."""

    median: float
    lowest: float
    highest: float
    runs: list[float]

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of one value a run."""
        return cls(statistics.median(values), min(values), max(values), values)


def figures(seen: Sample, trips: float, around: Surroundings) -> Figures:
    """All figures of one run. Shares are parts of one core; `network` of the time; `machine` of all its cores, and
    `others` what other programs (and the system) have of these.

    `trips` is how many round trips a job needs one after the other, where they cannot overlap: with 100 jobs under
    way at most, a job needs a hundredth of one.
    """
    found = {"jobs": float(seen.jobs), "seconds": seen.seconds, "jobs_per_second": seen.jobs / seen.seconds}
    if seen.times:
        ordered = sorted(seen.times)
        found |= {"p50_ms": statistics.median(ordered), "p99_ms": ordered[int(len(ordered) * 0.99)]}
    found |= {f"{name}_cpu_us": cpu / seen.jobs * 1e6 for name, cpu in seen.cpu.items()}
    shares = {f"{name}_share": cpu / seen.seconds for name, cpu in seen.cpu.items()}
    if seen.server_thread is not None:
        shares["server_share"] = seen.server_thread / seen.seconds
    ours = sum(cpu for name, cpu in seen.cpu.items() if name in around.here)
    cores = seen.seconds * around.cores
    machine = {
        "machine_share": min(1.0, max(seen.machine, ours) / cores),
        "others_share": min(1.0, max(0.0, seen.machine - ours) / cores),
    }
    network = min(1.0, seen.jobs * trips * around.ping_ms / 1000 / seen.seconds)
    return found | shares | {"network_share": network} | machine


def bound(found: Mapping[str, float]) -> str:
    """What bounds a scenario, by its median shares.

    "waiting": nothing is busy, the processes wait for each other. "unknown": or the server is, and does not tell.

    >>> bound({"worker_share": 0.97, "server_share": 0.9, "network_share": 0.1, "machine_share": 0.95})
    'worker CPU'
    """
    busiest = max(PROCESSES, key=lambda name: found.get(f"{name}_share", 0.0))
    if found.get(f"{busiest}_share", 0.0) > BUSY:
        return f"{busiest} CPU"
    if found["network_share"] >= EXPLAINS:
        return "network"
    if found["machine_share"] > BUSY:
        return "the machine"
    return "waiting" if "server_share" in found else "unknown"


def reason(found: Mapping[str, float]) -> str:
    """The shares behind `bound`."""
    known = [name for name in (*PROCESSES, "network", "machine", "others") if f"{name}_share" in found]
    return ", ".join(f"{name} {found[f'{name}_share']:.0%}" for name in known)
