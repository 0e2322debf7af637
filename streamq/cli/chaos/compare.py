"""`streamq chaos --compare`: how two other queues fared under the same kills, as it was recorded with this release."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Final

import msgspec

WIDTH: Final = 100
RECORDED: Final = Path(__file__).with_name("compared.json")


class System(msgspec.Struct):
    """What one queue did with its jobs, all runs together."""

    name: str
    versions: dict[str, str]
    settings: str
    runs: int
    kills: int
    stops: int
    restarts: int
    acknowledged: int
    lost: int  # acknowledged, and never ended
    ended_twice: int  # jobs whose body came to its end more than once
    started_again: int  # jobs that began more than once
    recovery_p50: float  # seconds from a kill to the next start of a job that it cut off
    recovery_max: float


class Comparison(msgspec.Struct):
    """The recorded figures, and under which conditions they were taken."""

    date: str
    machine: str
    server: str
    seeds: list[int]
    seconds: float  # of each run
    waited: float  # seconds after the last fault, before a job counts as lost
    settings: dict[str, float]
    systems: list[System]


HOW: Final = """\
The same driver sends each queue {rate:g} jobs of 5 to 50 ms a second, and plays the same schedules of faults on its
{workers:g} worker processes with {concurrency:g} jobs at once: SIGKILL, SIGSTOP for 1.5 to 3 leases, SIGTERM followed
by SIGKILL, SIGTERM to one after the other. Lease, or what comes nearest to it: {lease:g} s. A job writes to a file
when it begins and just before it ends, whoever runs it.

Lost: acknowledged to the producer, and not ended {waited:g} s after the last fault, while a few new jobs came.
Ended twice: its body came to its end more than once, as it must in every queue that starts jobs again when their
worker died between the last line of the task and the acknowledgement. Recovery: from a kill to the next start of a
job that it cut off, median."""


def recorded(path: Path = RECORDED) -> Comparison:
    """What the benchmark wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Comparison)


def shown(found: Comparison | None = None) -> str:
    """The figures, how they were taken, and the versions."""
    found = found or recorded()
    heads = ("", "kills", "stops", "acknowledged", "lost", "ended twice", "started again", "recovery")
    rows = [
        (each.name, *(f"{count:,}" for count in _counts(each)), f"{each.recovery_p50:.2f} s") for each in found.systems
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    table = ["  ".join(map(str.rjust, row, widths)) for row in (heads, *rows)]
    seeds = ", ".join(map(str, found.seeds))
    how = HOW.format(**found.settings, waited=found.waited).split("\n\n")
    systems = [f"{each.name}: {_versions(each)}. {each.settings}." for each in found.systems]
    taken = f"Recorded on {found.date}: {found.machine}, {found.server}, {found.seconds:g} s each, seeds {seeds}."
    told = [fill(" ".join(text.split()), WIDTH) for text in [*how, *systems, taken]]
    return "\n".join([*table, "", *(f"{text}\n" for text in told), "python -m benchmarks chaos    takes them anew."])


def _counts(system: System) -> tuple[int, ...]:
    return system.kills, system.stops, system.acknowledged, system.lost, system.ended_twice, system.started_again


def _versions(system: System) -> str:
    return ", ".join(f"{name} {version}" for name, version in system.versions.items())
