"""One queue's way through this worker: settle what finished and fetch what there is room for, in one round trip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from streamq.broker.broker import Broker, Turn
from streamq.core.job import Delivery, Record, State
from streamq.core.limits import MAX_BATCH
from streamq.core.outcome import NIL, RECORD_VERSION, Complete, Drop, Release, Settlement
from streamq.worker.early import conclude
from streamq.worker.held import Cause, Held, Holding
from streamq.worker.plan import Plan
from streamq.worker.reports import Reports
from streamq.worker.runner import Runner
from streamq.worker.slots import Slots

logger = logging.getLogger("streamq.worker")

STALE: Final = 0.05  # seconds after which an empty queue that nobody listens to is looked at again
MAX_BYTES: Final = 8 << 20  # of results in one turn
HEAVY: Final = 65_536

Finished = tuple[Holding, Settlement]


class Load(NamedTuple):
    """What one turn carries: settlements, the delivery counts they were made under, places to fill.

    `heard` are the jobs that the listener brought since the last one: history has to know of them.
    """

    batch: list[Finished]
    counts: list[int]
    want: int
    heard: list[str]


class Lane:
    """What finishes in one pass of the loop travels together, in one of two turns at most (see `Flight`).

    lane.finished(holding, settlement)        # the runner says so
    load = lane.board()                       # a flight takes it to Redis
    lane.landed(load, turn, sent)
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
        self.on_resume: Callable[[], None] | None = None  # what was given back may be taken again
        self.on_room: Callable[[], None] | None = None  # a sweep found every slot taken
        self.overslept: Callable[[float], bool] = lambda _: False  # see `Heartbeat`
        self.paused = False  # nobody may take jobs of the queue
        self._ruled = 0.0  # since when that is known (monotonic seconds): older answers count no more
        self._broker = broker
        self._consumer = consumer
        self._slots = slots
        self._fill = min(MAX_BATCH, (slots.capacity + 1) // 2)  # half of what runs, so that two turns overlap
        self._flying = 0
        self._grounded = 0  # turns that failed, and wait for their next try
        self._share = slots.share(queue)
        self._runner = runner
        self._reports = reports
        self._lease = broker.options.lease
        self.bell = asyncio.Event()  # there is a reason for a turn
        self.gate = asyncio.Lock()  # of the flights, one waits for the bell
        self.gave_up = asyncio.Event()  # Redis is no longer tried
        self._done: list[Finished] = []
        self._heard: list[str] = []
        self._heavy = False
        self.unheld: set[Holding] = set()  # acknowledged early, and running
        self._early: dict[int, asyncio.Future[bool]] = {}
        self._concluding: set[asyncio.Task[None]] = set()
        self._prompted = True
        self._looked = 0.0
        self.left = 0.0  # when its last turn was sent
        self.bell.set()

    # ---- turns ----------------------------------------------------------------------------------------------

    def board(self) -> Load | None:
        """What the next turn carries; None if there is no reason for one."""
        share, slots = self._share, self._slots
        full = len(self._done) >= self._fill or slots.free >= self._fill
        if slots.busy and not full:
            return None  # what finishes in small numbers travels together, when another turn is back
        batch = self._take()
        fetch = not (self.closing or self._grounded) and (share.hungry or self._prompted or bool(batch))
        want = slots.reserve(share, self._fill) if fetch else 0
        if not (batch or want or self._heard):
            if slots.listening and not slots.shared:
                self._prompted = False  # the only slot is the listener's, and it looks already
            self._review()
            return None
        if batch or want:
            self._prompted = False
        self._flying += 1
        slots.flying += 1
        if self._done:
            self.bell.set()  # the other half
        heard, self._heard = self._heard, []
        return Load(batch, [holding.delivery.count for holding, _ in batch], want, heard)

    def ground(self, load: Load) -> None:
        """A turn failed. While it waits for the next try, its places are for other queues: theirs may be well."""
        share, slots = self._share, self._slots
        self._grounded += 1
        self._flying -= 1
        slots.flying -= 1
        slots.settle(share, load.want, 0)
        share.hungry = False
        self._prompted = True  # what became of this one is not known
        if self.on_free is not None:
            self.on_free()

    def lift(self, load: Load) -> Load:
        """The next try, with the places there are now."""
        self._grounded -= 1
        self._flying += 1
        self._slots.flying += 1
        want = 0 if self.closing else self._slots.reserve(self._share, self._fill)
        return load._replace(want=want, heard=[])  # told once: later it could be written after these jobs' ends

    def landed(self, load: Load, turn: Turn, sent: float) -> None:
        """What Redis answered to a turn that was sent at `sent` (monotonic seconds)."""
        share, slots = self._share, self._slots
        self._flying -= 1
        slots.flying -= 1
        self.left = sent
        got = len(turn.deliveries)
        slots.settle(share, load.want, got)
        if load.want:
            slots.feed(share, got >= load.want)
            self._looked = sent
            if turn.paused is not self.paused and sent > self._ruled:
                self.rule(turn.paused, sent)
        self._settled(load, turn)
        self.receive(turn.deliveries, sent)
        self._review()
        self.freed()  # others found every slot reserved, or too many turns under way

    def _review(self) -> None:
        # Still hungry: the next turn looks. Else the listener may wait for the next job.
        if not (self.closing or self.paused or self._share.hungry) and self._slots.idle:
            self.room.set()
        else:
            self.room.clear()

    def wake(self) -> None:
        """There is a free slot, or a turn is back."""
        slots, share = self._slots, self._share
        unwatched = slots.shared and not (share.hungry or self._grounded or self.room.is_set())
        # Nobody listens while all slots are taken: what is known of the queue grows old.
        if unwatched and time.monotonic() - self._looked > STALE and not (self.closing or self.paused):
            slots.feed(share, True)
        if self._done or self._prompted or (share.hungry and slots.free):
            self.bell.set()
        if self.on_room is not None and slots.idle:
            sweep, self.on_room = self.on_room, None
            sweep()

    def freed(self) -> None:
        """A turn or a sweep is back: slots that were reserved are free again, for any lane."""
        if self.on_free is None:
            self.wake()
        else:
            self.on_free()

    def hear(self, deliveries: Sequence[Delivery], asked: float) -> None:
        """What the listener brought at last, having asked at `asked`: there is probably more."""
        if deliveries:
            if self._broker.options.events:
                self._heard += [delivery.job_id for delivery in deliveries]
            self.receive(deliveries, asked)
            self.prompt()

    def prompt(self) -> None:
        """There is probably a job: look at once."""
        self._prompted = True
        self.bell.set()

    def rule(self, paused: bool, known: float) -> None:
        """Whether the queue is paused, as of `known` (monotonic seconds): the bell says so, or an answer to a turn.

        Nothing starts while it is, and what waits here for a slot is given back. What runs goes on.
        """
        if paused is not self.paused:
            logger.info("queue %s is %s", self.queue, "paused: none of its jobs starts" if paused else "resumed")
        self._ruled, self.paused = known, paused
        if not paused:
            self.prompt()
            if self.on_resume is not None:
                self.on_resume()
            return
        self._share.hungry = False
        self.room.clear()
        for holding in self._runner.unstarted(self):
            self.release_unstarted(holding)

    @property
    def calm(self) -> bool:
        """Whether the queue was empty when last asked, and nothing of it is held here."""
        busy = self._flying or self._share.hungry or self._prompted
        return not (busy or self.held or self._done or self._concluding)

    # ---- jobs come ------------------------------------------------------------------------------------------

    def receive(self, deliveries: Sequence[Delivery], asked: float) -> None:
        """Take these in hand. Their leases count from `asked` (monotonic seconds), when Redis was asked for them."""
        deadline, held, accept = asked + self._lease, self.held, self._runner.accept
        if self.closing or self.paused or self.overslept(asked):
            for delivery in deliveries:
                if not self._known((delivery.priority, delivery.entry), delivery, deadline):
                    self._release(delivery, asked)
            return
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
        self.bell.set()

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
        if not self._slots.busy or len(self._done) >= self._fill:  # else a turn that is under way wakes the next
            self.bell.set()
            if self.on_free is not None:
                self.on_free()

    def release_unstarted(self, holding: Holding) -> None:
        """Give back a job that was waiting for a slot."""
        holding.done = True
        self._done.append((holding, Release()))
        self.bell.set()

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
        self.bell.set()
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
        size = min(len(self._done), self._fill)
        if self._heavy:
            size = _up_to(MAX_BYTES, self._done[:size])
        batch, self._done = self._done[:size], self._done[size:]
        self._heavy = self._heavy and bool(self._done)
        return batch

    def _settled(self, load: Load, turn: Turn) -> None:
        wanted = bool(load.batch) and self._reports.wanted
        for (holding, settlement), count, reply in zip(load.batch, load.counts, turn.replies, strict=True):
            good = reply in ("ok", "dup")
            if holding.adopted and holding.delivery.count != count and (not good or isinstance(settlement, Release)):
                # The sweep gave it to us again while this travelled: given back, that delivery never started.
                again = Release() if isinstance(settlement, Release) else settlement
                self._done.append((holding, again))
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
        if wanted:
            self._reports.batch_ended()

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
        told = await conclude(self._broker, holding, settlement, self.gave_up)
        if told and self._reports.wanted:
            self._reports.settled(holding, settlement, self._broker.clock.now_ms())
            self._reports.batch_ended()

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
        self.bell.set()

    def give_up(self) -> None:
        """Try no longer to reach Redis."""
        self.gave_up.set()
        for answer in self._early.values():
            if not answer.done():
                answer.set_result(False)
        self.bell.set()

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
