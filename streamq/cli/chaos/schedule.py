"""Which fault happens when: drawn from a seed, before anything runs. Same seed, same faults."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Final


class Kind(StrEnum):
    """What can be done to a worker or to the server."""

    KILL = "kill"
    STOP = "stop"
    RESTART = "restart"
    HALT = "kill in shutdown"
    POISON = "poison"
    FLUSH = "script flush"
    SERVER_KILL = "server kill"
    SERVER_STOP = "server stop"


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` and `seconds`, how long it lasts, are seconds; `worker` is a place from 0 on, not a process."""

    at: float
    kind: Kind
    worker: int
    seconds: float


CATALOGUE: Final = {  # what docs/reliability.md calls it
    Kind.KILL: "F01",
    Kind.STOP: "F02",
    Kind.POISON: "F07",
    Kind.RESTART: "F08",
    Kind.HALT: "F10",
    Kind.SERVER_KILL: "F11",
    Kind.SERVER_STOP: "F13",
    Kind.FLUSH: "F23",
}
OF_WORKERS: Final = frozenset({Kind.KILL, Kind.STOP, Kind.RESTART, Kind.HALT})
DECK: Final[Mapping[Kind, int]] = {  # how often each occurs, before all of them begin anew
    Kind.KILL: 8,
    Kind.STOP: 4,
    Kind.HALT: 2,
    Kind.RESTART: 1,
    Kind.POISON: 1,
    Kind.FLUSH: 2,
    Kind.SERVER_KILL: 1,
    Kind.SERVER_STOP: 1,
}
LASTS: Final[Mapping[Kind, tuple[float, float]]] = {  # leases
    Kind.STOP: (1.5, 3.0),
    Kind.HALT: (0.0, 0.3),
    Kind.SERVER_KILL: (0.2, 3.0),
    Kind.SERVER_STOP: (1.0, 3.0),
}
GAP: Final = (0.5, 2.0)  # leases from one fault to the next


def schedule(seed: int, seconds: float, *, workers: int, lease: float, kinds: Collection[Kind]) -> list[Fault]:
    """The faults of a run. A longer run of the same seed begins with those of a shorter one."""
    return list(takewhile(lambda fault: fault.at < seconds, _endless(seed, workers, lease, kinds)))


def _endless(seed: int, workers: int, lease: float, kinds: Collection[Kind]) -> Iterator[Fault]:
    dice = random.Random(f"faults {seed}")
    at = lease
    while True:
        deck = [kind for kind, count in DECK.items() for _ in range(count if kind in kinds else 0)]
        dice.shuffle(deck)
        for kind in deck:
            yield Fault(at, kind, dice.randrange(workers), lease * dice.uniform(*LASTS.get(kind, (0.0, 0.0))))
            at += lease * dice.uniform(*GAP)
