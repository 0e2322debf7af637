"""How many jobs may run here at once, and which queue gets the next free place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from streamq.core.limits import MAX_BATCH


class Share:
    """One queue's claim on the slots: its weight, and what it was served so far.

    `hungry` says that its last fetch came back full: there is probably more.
    """

    __slots__ = ("hungry", "queue", "served", "weight")

    def __init__(self, queue: str, weight: int = 1) -> None:
        self.queue: Final = queue
        self.weight: Final = weight
        self.served = 0.0  # jobs handed out, divided by the weight
        self.hungry = True


def allot(free: int, shares: Iterable[Share]) -> dict[str, int]:
    """Hand out `free` slots to the hungry queues, each to the one least served for its weight.

    allot(4, [Share("high", 3), Share("low", 1)])        # {'high': 3, 'low': 1}
    """
    hungry = [share for share in shares if share.hungry]
    given = {share.queue: 0 for share in hungry}
    if len(hungry) == 1:
        given[hungry[0].queue] = max(0, free)
        return given
    served = {share.queue: share.served for share in hungry}
    for _ in range(free if hungry else 0):
        least = min(hungry, key=lambda share: (served[share.queue], -share.weight))
        given[least.queue] += 1
        served[least.queue] += 1 / least.weight
    return given


class Slots:
    """The places of one worker: `concurrency` jobs run, `prefetch` more may wait here for their turn.

    slots = Slots(concurrency=100, prefetch=0, weights={"high": 3, "default": 1})
    wanted = slots.reserve(slots.share("high"), 500)
    """

    __slots__ = (
        "_shares",
        "capacity",
        "concurrency",
        "flying",
        "listening",
        "reserved",
        "running",
        "shared",
        "suspects",
        "waiting",
    )

    def __init__(self, concurrency: int, prefetch: int, weights: dict[str, int]) -> None:
        self.concurrency: Final = concurrency
        self.capacity: Final = concurrency + prefetch
        self.running = 0
        self.waiting = 0  # received, not started
        self.reserved = 0  # asked for, no reply yet
        self.flying = 0  # turns under way, of all lanes
        self.listening = 0  # listeners that block: each may bring a job
        self.suspects = 0  # held here, or asked for
        self._shares = {queue: Share(queue, weight) for queue, weight in weights.items()}
        self.shared: Final = len(weights) > 1  # several queues compete

    def share(self, queue: str) -> Share:
        """The claim of one of the worker's queues."""
        return self._shares[queue]

    @property
    def free(self) -> int:
        """Places for which a job may be asked.

        A listener keeps one for what it may bring, unless it would keep it from another queue.
        """
        kept = 0 if self.shared else self.listening
        return max(0, self.capacity - self.running - self.waiting - self.reserved - kept)

    @property
    def busy(self) -> bool:
        """Whether a turn that is not full should wait: many lanes with a few jobs each would cost a turn a job."""
        return self.flying > int(self.shared)

    @property
    def idle(self) -> bool:
        """Whether a job that arrived now could start at once."""
        return self.running + self.waiting < self.concurrency

    @property
    def empty(self) -> bool:
        """Whether nothing runs here and nothing waits."""
        return not self.running and not self.waiting

    def reserve(self, share: Share, most: int = MAX_BATCH, *, sweep: bool = False) -> int:
        """Take as many places for this queue as it is due, at most `most`. Give each back with `settle`.

        A sweep takes the listener's place too: with one slot it would never get any.
        """
        wanted = self.free
        if sweep and not wanted and self.idle and not self.reserved:
            wanted = 1
        if wanted and self.shared:
            hungry, share.hungry = share.hungry, True
            wanted = allot(min(wanted, most), self._shares.values())[share.queue]
            share.hungry = hungry
        wanted = min(wanted, most)
        self.reserved += wanted
        return wanted

    def settle(self, share: Share, wanted: int, got: int) -> None:
        """What came of a reservation: `got` jobs for `wanted` places."""
        self.reserved -= wanted
        share.served += got / share.weight

    def feed(self, share: Share, hungry: bool) -> None:
        """Say whether the queue has more. One that was silent does not come back with a credit for that time."""
        if hungry and not share.hungry and self.shared:
            others = [other.served for other in self._shares.values() if other.hungry]
            share.served = max(share.served, min(others, default=0.0))
        share.hungry = hungry
