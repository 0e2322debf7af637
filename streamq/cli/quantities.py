"""Numbers as people type them on a command line: how many processes, how much memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import click

UNITS: Final = {"": 1, "B": 1} | {
    f"{letter}{binary}B": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGT", start=1)
    for binary in ("", "i")
}
SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def memory(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    """Bytes: 500MB, 1.5GiB, 200000000; 0 if nothing was given. As a click callback."""
    if value is None:
        return 0
    known = {unit.lower(): size for unit, size in UNITS.items()}
    found = SIZE.fullmatch(value.strip())
    size = known.get(found[2].lower()) if found else None
    total = int(float(found[1]) * size) if found and size else 0
    if not total:
        raise click.BadParameter(f"{value!r} is no size: give 500MB, 1.5GiB or a number of bytes.", ctx, param)
    return total


def processes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A number from 1 on, or auto: one for each core that this process may use. As a click callback."""
    text = value.strip()
    if text == "auto":
        return cores()
    if not (text.isascii() and text.isdigit() and int(text)):
        raise click.BadParameter(f"{value!r} is no number of processes: give 1 or more, or auto.", ctx, param)
    return int(text)


def cores() -> int:
    """The cores that this process may use: those it is bound to, and no more than its container was given."""
    counted = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    bound: int | None = (
        counted() if counted else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    return max(1, min(bound or 1, _quota()))


def _quota() -> int:
    try:
        granted, period = QUOTA.read_text().split()
        return -(-int(granted) // int(period))
    except (OSError, ValueError):  # there is none, or it says "max"
        return 1_000_000
