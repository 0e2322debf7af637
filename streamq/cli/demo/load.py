"""The jobs of the demo: what is enqueued, under which names in the books."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from streamq.cli.demo import tasks
from streamq.client.partial import Signature

DELAY: Final = 2.0  # seconds
PROBES: Final = 200
LONG: Final = 4  # slow jobs that last a second: somebody holds one when the kill comes


@dataclass(slots=True)
class Load:
    """(key, call) of the burst and of the mixture, and how long each delayed job has to wait, in ns."""

    burst: list[tuple[str, Signature[Any]]]
    mixed: list[tuple[str, Signature[Any]]]
    delays: dict[str, int] = field(default_factory=dict[str, int])


def load(jobs: int, seed: int = 1) -> Load:
    """About `jobs` calls: three fifths fast ones in a burst, the others of every kind in random order."""
    chance = random.Random(seed)
    mixture = jobs - jobs * 3 // 5
    burst = [(f"burst-{n}", tasks.fast.s(f"burst-{n}")) for n in range(jobs - mixture)]
    mixed = list(_mixture(mixture, chance))
    long = [call for call in mixed if call[0].startswith("slow-")][:LONG]
    rest = [call for call in mixed if call not in long]
    chance.shuffle(rest)
    delays = {key: int(DELAY * 1e9) for key, _ in mixed if key.startswith("delayed-")}
    return Load(burst, long + rest, delays)


def _mixture(jobs: int, chance: random.Random) -> Iterator[tuple[str, Signature[Any]]]:
    def some(share: float, least: int = 1) -> range:
        return range(max(least, int(jobs * share)))

    for n in some(0.30, LONG):
        key = f"slow-{n}"
        yield key, tasks.slow.s(key, 1.0 if n < LONG else chance.uniform(0.05, 0.2))
    for n in some(0.12):
        yield f"flaky-{n}", tasks.flaky.s(f"flaky-{n}", chance.choice((1, 2)))
    for n in some(0.03):
        yield f"doomed-{n}", tasks.doomed.s(f"doomed-{n}")
    for n in some(0.10):
        yield f"delayed-{n}", tasks.fast.using(countdown=DELAY).s(f"delayed-{n}")
    for n in some(0.05):
        key = f"pair-{n}"
        for _ in range(2):
            yield key, tasks.fast.using(idempotency_key=key).s(key)
    for n in some(0.35):
        yield f"fast-{n}", tasks.fast.s(f"fast-{n}")


def probes(count: int = PROBES) -> list[str]:
    """The keys of the single jobs that measure latency."""
    return [f"probe-{n}" for n in range(count)]
