"""One queue's way through this worker: settle what finished and fetch what there is room for, in one round trip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from streamq.broker.broker import Broker, Turn
from streamq.core.job import Delivery, Record, State
from streamq.core.limits import MAX_BATCH
from streamq.core.outcome import NIL, RECORD_VERSION, Complete, Drop, Release, Settlement
from streamq.worker.early import conclude
from streamq.worker.held import Cause, Held, Holding
from streamq.worker.patience import GaveUp, persist
from streamq.worker.plan import Plan
from streamq.worker.reports import Reports
from streamq.worker.runner import Runner
from streamq.worker.slots import Slots

logger = logging.getLogger("streamq.worker")

STALE: Final = 0.05  # seconds after which an empty queue that nobody listens to is looked at again
MAX_BYTES: Final = 8 << 20  # of results in one turn
HEAVY: Final = 65_536

Finished = tuple[Holding, Settlement]


class Lane:
    """At most one turn at a time. What finishes in one pass of the loop travels together.

    lane.finished(holding, settlement)        # the runner says so
    await lane.turn()
    """

    def __init__(
        self, broker: Broker, queue: str, consumer: str, slots: Slots, runner: Runner, reports: Reports
    ) -> None:
        self.name = f"lane {queue}"
        self.queue: Final = queue
        self.held: Held = {}
        self.closing = False  # it fetches no more
        self.room = asyncio.Event()  # the listener may block
        self.on_free: Callable[[], None] | None = None  # several queues: tell the others of a free slot
        self.on_suspect: Callable[[], None] | None = None  # the next suspect may come
        self._broker = broker
        self._consumer = consumer
        self._slots = slots
        self._share = slots.share(queue)
        self._runner = runner
        self._reports = reports
        self._lease = broker.options.lease
        self._bell = asyncio.Event()
        self._gave_up = asyncio.Event()
        self._done: list[Finished] = []
        self._heavy = False
        self.unheld: set[Holding] = set()  # acknowledged early, and running
        self._early: dict[int, asyncio.Future[bool]] = {}
        self._concluding: set[asyncio.Task[None]] = set()
        self._request = 0
        self._prompted = True
        self._looked = 0.0
        self._bell.set()

    # ---- the loop -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take a turn whenever there is a reason, until cancelled or given up."""
        task = asyncio.current_task()
        try:
            while task is not None and not task.cancelling():  # a connection that is made can lose a cancellation
                await self._bell.wait()
                self._bell.clear()
                await self.turn()
        except GaveUp:
            pass

    async def turn(self) -> None:
        """One round trip at most."""
        batch, share, slots = self._take(), self._share, self._slots
        fetch = not self.closing and (share.hungry or self._prompted or bool(batch))
        want = slots.reserve(share) if fetch else 0
        if not batch and not want:
            if slots.listening and not slots.shared:
                self._prompted = False  # the only slot is the listener's, and it looks already
            self._review(denied=fetch)
            return
        self._prompted = False
        got, sent = 0, 0.0
        self._request += 1
        counts = [holding.delivery.count for holding, _ in batch]
        pairs = [(holding.delivery, settlement) for holding, settlement in batch]

        async def once() -> Turn:
            nonlocal sent
            sent = time.monotonic()
            return await self._broker.turn(self.queue, self._consumer, pairs, want, request=self._request)

        try:
            turn = await persist(once, what=self.name, where=self._broker.connections.address, stopping=self._gave_up)
            got = len(turn.deliveries)
        finally:
            slots.settle(share, want, got)
        if want:
            slots.feed(share, got >= want)
            self._looked = sent
        self._settled(batch, counts, turn)
        self.receive(turn.deliveries, sent)
        self._review()
        if got < want and self.on_free is not None:
            self.on_free()  # who looked for a free slot meanwhile found them all reserved

    def _review(self, *, denied: bool = False) -> None:
        # Still hungry with a slot to spare: again. Else let the listener wait for the next job. A lane whose slots
        # went to another queue must not ask again at once, it would spin: whoever got them wakes it (on_free).
        if self.closing:
            self.room.clear()
        elif self._share.hungry:
            self.room.clear()
            if self._slots.free and not denied:
                self._bell.set()
        elif self._slots.idle:
            self.room.set()
        else:
            self.room.clear()
        if self._done:
            self._bell.set()

    def wake(self) -> None:
        """There is a free slot, or something to settle."""
        unwatched = self._slots.shared and not self._share.hungry and not self.room.is_set()
        # Nobody listens while all slots are taken: what is known of the queue grows old.
        if unwatched and time.monotonic() - self._looked > STALE and not self.closing:
            self._slots.feed(self._share, True)
        self._bell.set()

    def freed(self) -> None:
        """Slots that were reserved for a sweep are free again."""
        self.wake()
        if self.on_free is not None:
            self.on_free()

    def prompt(self) -> None:
        """There is probably a job: look at once."""
        self._prompted = True
        self._bell.set()

    @property
    def calm(self) -> bool:
        """Whether the queue was empty when last asked, and nothing of it is held here."""
        return not (self._share.hungry or self._prompted or self.held or self._done or self._concluding)

    # ---- jobs come ------------------------------------------------------------------------------------------

    def receive(self, deliveries: Sequence[Delivery], asked: float) -> None:
        """Take these in hand. Their leases count from `asked` (monotonic seconds), when Redis was asked for them."""
        if self.closing:
            for delivery in deliveries:
                self._release(delivery, asked)
            return
        deadline, held, accept = asked + self._lease, self.held, self._runner.accept
        for delivery in deliveries:
            key = (delivery.priority, delivery.entry)
            if delivery.count > 1 and self._known(key, delivery, deadline):
                continue
            holding = held[key] = Holding(delivery, deadline)
            if delivery.crashes >= 2:
                holding.suspect = True
                self._slots.suspects += 1
            accept(holding, self)

    def _known(self, key: tuple[int, bytes], delivery: Delivery, deadline: float) -> bool:
        """The sweep can bring an entry that this worker never stopped running: adopt it, never run it twice."""
        holding = self.held.get(key)
        if holding is None:
            return False
        holding.delivery.count, holding.delivery.forgiven = delivery.count, delivery.forgiven
        holding.deadline = deadline
        holding.adopted = True
        if holding.cancellation is not None and holding.cancellation.cause is Cause.LOST:
            holding.successor = delivery  # this copy is being cancelled: the next one waits for its end
        return True

    def _release(self, delivery: Delivery, asked: float) -> None:
        holding = Holding(delivery, asked + self._lease)
        holding.done = True
        self.held[holding.key] = holding
        self._done.append((holding, Release()))
        self._bell.set()

    # ---- jobs go --------------------------------------------------------------------------------------------

    def finished(self, holding: Holding, settlement: Settlement) -> None:
        """The runner is done with a job: it travels with the next turn."""
        if holding.early:
            self.unheld.discard(holding)
            self._forget(holding)
            task = asyncio.ensure_future(self._conclude(holding, settlement))
            self._concluding.add(task)
            task.add_done_callback(self._concluded)
        elif isinstance(settlement, Drop):
            self._forget(holding)
            self._lost(holding, "its lease ran out while it was running here")
        else:
            if isinstance(settlement, Complete) and len(settlement.record.result) > HEAVY:
                self._heavy = True
            self._done.append((holding, settlement))
        self._bell.set()
        if self.on_free is not None:
            self.on_free()

    def release_unstarted(self, holding: Holding) -> None:
        """Give back a job that was waiting for a slot."""
        holding.done = True
        self._done.append((holding, Release()))
        self._bell.set()

    async def settle_early(self, holding: Holding, plan: Plan) -> bool:
        """Acknowledge before the task runs (`acks_early`): from here on a crash loses the job."""
        job = holding.job
        assert job is not None
        record = Record(
            RECORD_VERSION, State.STARTED, job.task, NIL, None, "", job.enqueued_at, holding.started_at, 0,
            self._consumer, holding.attempt, job.retries, job.failures, holding.delivery.priority, job.options,
        )  # fmt: skip
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._early[id(holding)] = answer
        holding.unfenced = True
        self._done.append((holding, Complete(record, plan.ttl)))
        self._bell.set()
        cancelled: asyncio.CancelledError | None = None
        while not answer.done():
            try:
                await asyncio.wait({answer})
            except asyncio.CancelledError as error:  # not before the reply: the job would be settled twice
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return answer.result()

    def _take(self) -> list[Finished]:
        if not self._done:
            return []
        size = min(len(self._done), MAX_BATCH)
        if self._heavy:
            size = _up_to(MAX_BYTES, self._done[:size])
        batch, self._done = self._done[:size], self._done[size:]
        self._heavy = self._heavy and bool(self._done)
        return batch

    def _settled(self, batch: list[Finished], counts: list[int], turn: Turn) -> None:
        wanted = bool(batch) and self._reports.wanted
        for (holding, settlement), count, reply in zip(batch, counts, turn.replies, strict=True):
            good = reply in ("ok", "dup")
            if not good and holding.adopted and holding.delivery.count != count:
                self._done.append((holding, settlement))  # the sweep gave it to us again while this travelled
                continue
            waiting = self._early.pop(id(holding), None) if self._early else None
            if waiting is not None:
                holding.early = holding.unfenced = good
                self.held.pop(holding.key, None)
                if good:
                    self.unheld.add(holding)
                if not waiting.done():
                    waiting.set_result(good)
                continue
            self._forget(holding)
            if not good:
                self._lost(holding, f"Redis says {reply}: another worker has it or had it")
            elif wanted:
                self._reports.settled(holding, settlement, turn.now)

    def _forget(self, holding: Holding) -> None:
        self.held.pop(holding.key, None)
        if holding.suspect:
            self._slots.suspects -= 1
            if self.on_suspect is not None:
                self.on_suspect()
        successor = holding.successor
        if successor is not None and not self.closing:
            self.receive([successor], holding.deadline - self._lease)

    def _lost(self, holding: Holding, why: str) -> None:
        delivery = holding.delivery
        logger.warning("job %s of %s: nothing is recorded of this attempt, %s", delivery.job_id, self.queue, why)
        self._reports.lost(holding, self._broker.clock.now_ms())

    async def _conclude(self, holding: Holding, settlement: Settlement) -> None:
        told = await conclude(self._broker, holding, settlement, self._gave_up)
        if told and self._reports.wanted:
            self._reports.settled(holding, settlement, self._broker.clock.now_ms())

    def _concluded(self, task: asyncio.Task[None]) -> None:
        self._concluding.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("the outcome of a job that was acknowledged early is not recorded: %s", task.exception())

    # ---- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Fetch no more."""
        self.closing = True
        self.room.clear()
        self._share.hungry = False
        self._bell.set()

    def give_up(self) -> None:
        """Try no longer to reach Redis."""
        self._gave_up.set()
        for answer in self._early.values():
            if not answer.done():
                answer.set_result(False)
        self._bell.set()

    @property
    def flushed(self) -> bool:
        """Whether Redis knows the end of every job that ended."""
        return not self._done and not self._concluding and all(not h.done for h in self.held.values())


def _up_to(limit: int, finished: list[Finished]) -> int:
    """How many of these fit into `limit` bytes of results, at least one."""
    total = 0
    for count, (_, settlement) in enumerate(finished):
        total += len(bytes(settlement.record.result)) if isinstance(settlement, Complete) else 0
        if count and total > limit:
            return count
    return len(finished)
