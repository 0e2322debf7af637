"""What one worker process says of itself: to its supervisor about once a second, or to who asks over HTTP."""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Status(msgspec.Struct, omit_defaults=True):
    """One process now, or several of them taken together. What is counted grows for as long as they live."""

    ready: bool = False  # it takes jobs
    draining: bool = False  # it takes none any more
    connected: bool = False  # Redis answered within the last seconds
    running: dict[str, int] = {}  # queue -> jobs
    finished: dict[str, dict[str, int]] = {}  # queue -> how the attempt ended -> attempts
    timed: dict[str, tuple[int, float]] = {}  # queue -> attempts that ran, seconds that they ran
    lag: float = 0.0  # seconds that the event loop came late, the worst of the last 15
    rss: int = 0  # bytes in memory
    worn: str = ""  # why somebody else should take its place: max-jobs, max-memory
    grace: float = 0.0  # seconds that it gives its jobs after a stop


def total(statuses: Iterable[Status]) -> Status:
    """Several processes as one: sums, and the worst lag."""
    running: Counter[str] = Counter()
    finished: defaultdict[str, Counter[str]] = defaultdict(Counter)
    timed: dict[str, tuple[int, float]] = {}
    lag, rss = 0.0, 0
    for each in statuses:
        running.update(each.running)
        for queue, states in each.finished.items():
            finished[queue].update(states)
        for queue, (count, seconds) in each.timed.items():
            before = timed.get(queue, (0, 0.0))
            timed[queue] = before[0] + count, before[1] + seconds
        lag, rss = max(lag, each.lag), rss + each.rss
    return Status(running=dict(running), finished={**finished}, timed=timed, lag=lag, rss=rss)


class Tally:
    """Counts what ends in this process, and says once when it has done, or grown, enough.

    `max_jobs` and `max_memory` (bytes) are 0 for no limit.

        tally = Tally(max_jobs=10_000, on_worn=parent.tell)
    """

    def __init__(self, max_jobs: int = 0, max_memory: int = 0, on_worn: Callable[[], None] | None = None) -> None:
        self.finished: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.timed: dict[str, tuple[int, float]] = {}
        self.jobs = 0
        self.worn = ""
        self._max_jobs = max_jobs
        self._max_memory = max_memory
        self._on_worn = on_worn

    def ended(self, queue: str, state: str, ms: float | None) -> None:
        """One attempt is over; it ran for `ms`, None if it never began."""
        self.jobs += 1
        self.finished[queue][state] += 1
        if ms is not None:
            count, seconds = self.timed.get(queue, (0, 0.0))
            self.timed[queue] = count + 1, seconds + ms / 1000

    def batch_ended(self) -> None:
        """All of one turn has been told: look at the limits."""
        if self.worn:
            return
        if self._max_jobs and self.jobs >= self._max_jobs:
            self.worn = "max-jobs"
        elif self._max_memory and resident() > self._max_memory:
            self.worn = "max-memory"
        if self.worn and self._on_worn is not None:
            self._on_worn()


def resident() -> int:
    """Bytes of this process in memory; where there is no /proc, the most that there ever were."""
    try:
        with open("/proc/self/statm", "rb") as said:
            return int(said.read().split()[1]) * PAGE
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
