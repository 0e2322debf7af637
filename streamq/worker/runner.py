"""One attempt, from a delivery to a settlement. The only place that catches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

import anyio
from msgspec import Raw

from streamq.broker.broker import Broker
from streamq.broker.wire import NO_OPTIONS, Unreadable, decode_job, decode_options, encode_progress, encode_value
from streamq.client.app import Application
from streamq.client.context import Context, current_context, current_job_id
from streamq.client.executor import Address
from streamq.client.hooks import Event
from streamq.core.codec import is_sealed, opened, seal
from streamq.core.job import Delivery, Failure, JobBody, Progress
from streamq.core.limits import check_payload
from streamq.core.outcome import (
    NIL,
    Attempt,
    Cancelled,
    Crashed,
    Expired,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Reject,
    Rejected,
    Release,
    Settlement,
    Snooze,
    Snoozed,
    Succeeded,
    Unregistered,
    decide,
    forged,
    undecodable,
)
from streamq.core.outcome import (
    Unreadable as NotReadable,
)
from streamq.core.signing import BadSignature
from streamq.errors import InvalidResult, TimeLimitExceeded, Undecodable
from streamq.worker.failures import failure_of, unknown_task
from streamq.worker.held import Cancellation, Cause, Holding
from streamq.worker.limits import SoftLimit
from streamq.worker.plan import Plan
from streamq.worker.pool import Pool
from streamq.worker.pool_child import Order
from streamq.worker.remote import told
from streamq.worker.slots import Slots

logger = logging.getLogger("streamq.worker")

COMPLAIN_EVERY: Final = 60.0  # seconds between two lines about the same unknown task


class Desk(Protocol):
    """Where a job came from, and where its settlement goes."""

    def finished(self, holding: Holding, settlement: Settlement) -> None:
        """The job ended here."""
        ...

    async def settle_early(self, holding: Holding, plan: Plan) -> bool:
        """Acknowledge before the task runs; False if the entry is no longer ours."""
        ...


class Runner:
    """Runs what the lanes hand over, as many at once as there are slots.

    runner.accept(deliveries, lane)
    """

    def __init__(self, app: Application[Any], slots: Slots, worker: str, state: object, pool: Pool) -> None:
        self.app = app
        self._broker: Broker = app.broker
        self._options = app.options
        self._keys = app.options.signing_keys
        self._codec = app.options.codec
        self._clock = app.broker.clock
        self._slots = slots
        self._worker = worker
        self._state = state
        self._pool = pool
        self._threads = anyio.CapacityLimiter(slots.concurrency)
        self._waiting: deque[tuple[Holding, Desk]] = deque()
        self._suspects = asyncio.Lock()
        self._plans: dict[str, Plan] = {}
        self._nowhere = Plan(None, app.options)
        self._complained: dict[str, float] = {}
        self._warned: set[str] = set()
        self._create_task = asyncio.get_running_loop().create_task

    # ---- places ------------------------------------------------------------------------------------------

    def accept(self, holding: Holding, desk: Desk) -> None:
        """Start it, or keep it until a slot is free."""
        slots = self._slots
        if slots.running < slots.concurrency:
            self._start(holding, desk)
        else:
            slots.waiting += 1
            self._waiting.append((holding, desk))

    def _start(self, holding: Holding, desk: Desk) -> None:
        self._slots.running += 1
        holding.task = self._create_task(self._work(holding, desk))

    def unstarted(self, desk: Desk | None = None) -> list[Holding]:
        """Take back what waits for a slot: everything, or what this desk handed over."""
        taken = [holding for holding, whose in self._waiting if desk is None or whose is desk]
        self._waiting = deque(each for each in self._waiting if desk is not None and each[1] is not desk)
        self._slots.waiting -= len(taken)
        return taken

    async def _work(self, holding: Holding, desk: Desk) -> None:
        holding.begun = True
        try:
            outcome, plan = await self.attempt(holding, desk)
            holding.done = True
            settlement = decide(outcome, self._facts(holding, plan))
        except Exception:
            logger.exception("the worker failed around job %s", holding.delivery.job_id)
            holding.done = True
            settlement = Release(forgive=False)
        slots = self._slots
        slots.running -= 1
        if self._waiting:
            slots.waiting -= 1
            self._start(*self._waiting.popleft())
        desk.finished(holding, settlement)

    # ---- the life of an attempt -----------------------------------------------------------------------------

    def _facts(self, holding: Holding, plan: Plan) -> Attempt:
        delivery, now = holding.delivery, self._clock.now_ms()
        return Attempt(
            holding.job,
            plan.options,
            plan.max_retries,
            plan.ttl,
            holding.started_at or now,
            now,
            self._worker,
            delivery.count - delivery.forgiven,
            delivery.priority,
            holding.early,
        )

    async def attempt(self, holding: Holding, desk: Desk) -> tuple[Outcome, Plan]:
        """Read, refuse or perform. Nothing that a job does gets past this."""
        delivery = holding.delivery
        if holding.cancellation is not None:
            return self._ended(holding, None), self._nowhere
        if delivery.crashes > self._options.max_crashes:
            return Crashed(delivery.crashes), self._nowhere
        try:
            job = holding.job = decode_job(delivery.body, self._options.max_payload)
            if self._keys is not None:
                self._keys.verify(self._options.namespace, delivery.queue, delivery.job_id, job)
            plan = self._plan(job)
        except Unreadable as problem:
            holding.job = None
            return NotReadable(str(problem)), self._nowhere
        except BadSignature as problem:
            return forged(problem), self._nowhere
        if plan.task is None:
            self._complain(job.task)
            return Unregistered(job.task), plan
        if plan.call.expires and self._clock.now_ms() >= plan.call.expires:
            return Expired(), plan
        if plan.call.codec and plan.call.codec not in self._options.accept:
            return undecodable(f"they are serialised as {plan.call.codec[:50]!r}, which `accept` does not name"), plan
        if self._codec is not None:
            try:
                job = opened(self._codec, job, self._options.max_payload)  # in `holding` it stays as it came
            except Undecodable as problem:
                return undecodable(problem), plan
        if holding.suspect:
            try:
                async with self._suspects:  # two suspects side by side would convict each other
                    return await self._perform(holding, job, plan, desk), plan
            except asyncio.CancelledError as error:  # while it waited for the other one
                return self._ended(holding, error), plan
        return await self._perform(holding, job, plan, desk), plan

    def _plan(self, job: JobBody) -> Plan:
        plan = self._plans.get(job.task)
        if plan is None:
            task = self.app.tasks.get(job.task)
            plan = Plan(task, self._options)
            if task is not None:
                self._plans[job.task] = plan
        if job.options != NO_OPTIONS:
            return Plan(plan.task, self._options, decode_options(job.options))
        return plan

    async def _perform(self, holding: Holding, job: JobBody, plan: Plan, desk: Desk) -> Outcome:
        delivery = holding.delivery
        holding.started_at = self._clock.now_ms()
        current_job_id.set(delivery.job_id)
        if self.app.events.wants("job.started"):
            self._announce(holding, job)
        try:
            if plan.simple:
                result = await self._call(holding, job, plan)
            elif plan.options.acks_early and not await desk.settle_early(holding, plan):
                return Lost()
            else:
                result = await self._limited(self._call(holding, job, plan), holding, plan)
            encoded = NIL if result is None or not plan.ttl else self._encoded(result, job.task)
        except GeneratorExit:  # the loop is closing: nobody waits for an answer
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit in a task is that task's failure
            return self._ended(holding, error)
        if holding.cancellation is not None and holding.cancellation.cause in _DISREGARD:
            return self._ended(holding, None)
        return Succeeded(encoded)

    def _encoded(self, result: object, task: str) -> Raw:
        try:
            encoded = encode_value(result)
            if self._codec is not None:
                encoded = seal(self._codec, encoded)
        except Exception as error:  # noqa: BLE001 - encoding calls what a user wrote
            raise InvalidResult(f"the return value of {task!r}: {error}") from None
        if len(encoded) > self._options.max_payload:
            check_payload(len(encoded), self._options.max_payload, f"the return value of {task!r}")
        return encoded

    def _call(self, holding: Holding, job: JobBody, plan: Plan) -> Coroutine[Any, Any, object]:
        delivery, task, call = holding.delivery, plan.task, plan.call
        assert task is not None
        ctx: Context[Any] = Context(
            job_id=delivery.job_id,
            task=job.task,
            queue=delivery.queue,
            state=self._state,
            priority=delivery.priority,
            attempt=holding.attempt,
            retries=job.retries,
            max_retries=plan.max_retries,
            enqueued_at=job.enqueued_at,
            options=call,
            worker=self._worker,
            report_progress=partial(self._report, delivery),
        )
        current_context.set(ctx)
        middleware = self.app.run_chain
        if plan.address is not None:
            return self._call_child(holding, job, plan, plan.address, ctx)
        args, kwargs = task.signature.decode(job.args, job.kwargs, call.codec)
        if middleware is None:
            return task.call(ctx, args, kwargs, self._threads)
        return middleware(ctx, lambda: task.call(ctx, args, kwargs, self._threads))

    async def _limited(self, call: Coroutine[Any, Any, object], holding: Holding, plan: Plan) -> object:
        assert plan.task is not None
        if plan.address is not None:
            return await call  # its time begins when a child is free
        soft = plan.soft_limit
        if not plan.task.is_async and (plan.hard_limit or soft):
            self._say_what_threads_cannot(plan.task.name)
        with _time_limit(holding, plan.hard_limit):
            return await (SoftLimit(call, soft) if soft and plan.task.is_async else call)

    async def _call_child(
        self, holding: Holding, job: JobBody, plan: Plan, address: Address, ctx: Context[Any]
    ) -> object:
        task, middleware = plan.task, self.app.run_chain
        assert task is not None
        order = Order(
            *address, task.name, job.args, job.kwargs, plan.call.codec, ctx.job_id, plan.soft_limit,
            self._options.max_payload,
        )  # fmt: skip
        limit = partial(_time_limit, holding, plan.hard_limit)
        if middleware is None:
            return await self._pool.call(order, limit)

        async def value() -> object:  # as it was returned, for the middleware
            return task.signature.result(await self._pool.call(order, limit))

        return await middleware(ctx, value)

    # ---- what it came to ---------------------------------------------------------------------------------------

    def _ended(self, holding: Holding, error: BaseException | None) -> Outcome:
        cancellation = holding.cancellation
        if cancellation is not None:
            outcome = self._cancelled(cancellation, error, holding)
            if outcome is not None:
                return outcome
        assert error is not None
        match error:
            case Snooze():
                return Snoozed(error.delay)
            case Reject():
                return Rejected(self._failure(error, holding))
            case Undecodable() if self._codec is None and holding.job is not None and is_sealed(holding.job.args):
                return undecodable(error)
            case _:
                return Failed(self._failure(error, holding), error)

    def _cancelled(self, why: Cancellation, error: BaseException | None, holding: Holding) -> Outcome | None:
        match why.cause:
            case Cause.LOST:
                return Lost()
            case Cause.TIME_LIMIT:
                exceeded = TimeLimitExceeded(why.text)
                if error is not None:  # where it was when its time was over
                    exceeded = exceeded.with_traceback(error.__traceback__)
                return Failed(self._failure(exceeded, holding), exceeded)
            case Cause.SHUTDOWN if error is None or isinstance(error, asyncio.CancelledError):
                return Interrupted()
            case Cause.USER if error is None or isinstance(error, asyncio.CancelledError):
                return Cancelled(why.text)
            case _:
                return None  # it had its own last word: a failure, a Retry, a Snooze

    def _failure(self, error: BaseException, holding: Holding) -> Failure:
        at, attempt = self._clock.now_ms(), holding.attempt
        if failure := told(error):
            return Failure(failure.error, failure.message, failure.traceback, at, attempt, self._worker)
        return failure_of(error, at=at, attempt=attempt, worker=self._worker)

    # ---- what is said about it -----------------------------------------------------------------------------

    async def _report(self, delivery: Delivery, progress: Progress) -> None:
        at = progress.at or self._clock.now_ms()
        stamped = Progress(progress.done, progress.total, progress.note, at)
        await self._broker.set_progress(delivery.queue, delivery.job_id, encode_progress(stamped))

    def _announce(self, holding: Holding, job: JobBody) -> None:
        delivery = holding.delivery
        self.app.events.emit(
            Event(
                name="job.started",
                job_id=delivery.job_id,
                task=job.task,
                queue=delivery.queue,
                attempt=holding.attempt,
                at=self._clock.now_ms(),
                worker=self._worker,
            )
        )

    def _complain(self, name: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(name, -COMPLAIN_EVERY) < COMPLAIN_EVERY:
            return
        if len(self._complained) > 1_000:  # names come from outside
            self._complained.clear()
        self._complained[name] = now
        logger.warning("%s", unknown_task(name, self.app.tasks))

    def _say_what_threads_cannot(self, name: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "%s is a plain function and runs in a thread, which cannot be stopped: at its time limit the job "
                "fails and the thread goes on; a soft time limit is not raised in it",
                name,
            )


@contextmanager
def _time_limit(holding: Holding, hard: float) -> Generator[None]:
    """Cancel the job after `hard` seconds in here; 0: never."""
    if not hard:
        yield
        return
    holding.hard_limit = time.monotonic() + hard
    timer = asyncio.get_running_loop().call_later(
        hard, holding.cancel, Cause.TIME_LIMIT, f"the time limit of {hard:g} s was reached"
    )
    try:
        yield
    finally:
        timer.cancel()


_DISREGARD: Final = frozenset({Cause.LOST, Cause.TIME_LIMIT})  # what it returned after these does not count

Proceed = Callable[[], Awaitable[object]]
