"""What is measured. A scenario is a function from a `Stage` to its figures, and a line in this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import NAMES
from benchmarks.scenarios import cluster, drain, enqueue, footprint, single
from benchmarks.stage import Figures, Stage

QUICK = 2  # --quick divides the jobs by this


@dataclass(frozen=True)
class Scenario:
    """How it is run: `most` bounds the jobs, `fixed` is a number of them that does not depend on the contender."""

    run: Callable[[Stage], Figures]
    most: int = 1_000_000
    fixed: int = 0
    concurrency: int = 100
    contenders: tuple[str, ...] = NAMES
    pinned: bool = False  # the server on one core, worker and driver on another
    core: bool = False  # in --quick
    share: float = 0.0  # of the contender's rate in `end_to_end`, which has to be known then

    def jobs(self, usual: int, *, quick: bool = False, limit: int = 0) -> int:
        """How many, for a contender whose JOBS is `usual`."""
        count = self.fixed or min(usual, self.most)
        return max(1, min(count // QUICK if quick else count, limit or count))


_STREAMQ = ("streamq",)
_LARGE = ("streamq", "raw", "bullmq")
_LOADED = ("streamq", "bullmq", "saq", "taskiq_list")
_CREWS = (1, 2, 3, 4)
_QUEUES = (1, 4, 16)
_SHARDS = (1, 2, 3)

SCENARIOS = {
    "enqueue_sequential": Scenario(enqueue.enqueue("enqueue_sequential"), most=10_000, core=True),
    "enqueue_concurrent": Scenario(enqueue.enqueue("enqueue_concurrent"), core=True),
    "enqueue_bulk": Scenario(enqueue.enqueue("enqueue_bulk"), core=True),
    "drain_32": Scenario(drain.drain, concurrency=32),
    "drain_100": Scenario(drain.drain, core=True),
    "end_to_end": Scenario(drain.end_to_end, core=True),
    "latency": Scenario(single.latency, fixed=500, pinned=True, core=True),
    "round_trip": Scenario(single.round_trip, fixed=500, pinned=True, core=True),
    "delayed": Scenario(single.delayed, fixed=1_000),
    "io": Scenario(drain.naps, most=5_000),
    "memory": Scenario(footprint.memory, most=20_000),
    "idle": Scenario(footprint.idle, fixed=1),
    "alone": Scenario(footprint.alone, fixed=1_000, contenders=_STREAMQ),
    "growth_10k": Scenario(drain.growth, fixed=10_000, contenders=_LARGE),
    "growth_100k": Scenario(drain.growth, fixed=100_000, contenders=_LARGE),
    "growth_1m": Scenario(drain.growth, fixed=1_000_000, contenders=_LARGE),
    **{f"workers_{n}": Scenario(drain.workers(n, "fill"), fixed=60_000, contenders=_STREAMQ) for n in _CREWS},
    **{f"workers_cpu_{n}": Scenario(drain.workers(n, "burns"), fixed=20_000, contenders=_STREAMQ) for n in _CREWS},
    **{f"queues_{n}": Scenario(drain.queues(n), fixed=30_000, contenders=_STREAMQ) for n in _QUEUES},
    **{f"cluster_{n}": Scenario(cluster.cluster(n), fixed=60_000, contenders=_STREAMQ) for n in _SHARDS},
    "load_50": Scenario(single.load, fixed=60_000, contenders=_LOADED, share=0.5),
    "load_80": Scenario(single.load, fixed=60_000, contenders=_LOADED, share=0.8),
}
