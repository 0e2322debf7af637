"""The life of a job as its owner reads it: "it was done twice, why?" has an answer, or is told to have none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from streamq import ConfigurationError, JobNotFound, State, StreamQ, Timeline
from streamq.broker import wire
from streamq.broker.values import NewJob
from streamq.core.job import Delivery, Failure, JobBody, JobOptions, Reason, Record
from streamq.core.outcome import NIL, Bury, Complete, Release, Reschedule
from tests.broker.byhand import LEASE, Server, Worker
from tests.conftest import MakeApp

T0 = 1_800_000_000_000
DEFAULT = "default"


class Stage:
    """One application, two workers by hand, and a clock that the test sets: seconds after T0."""

    def __init__(self, app: StreamQ[None], server: Server) -> None:
        self.app = app
        self.server = server
        self.w1 = Worker(app.broker, "w1", DEFAULT)
        self.w2 = Worker(app.broker, "w2", DEFAULT)
        self.seconds = 0.0
        app.broker.now = lambda: T0 + round(self.seconds * 1000)

    def at(self, seconds: float) -> None:
        self.seconds = seconds

    async def enqueue(self, job_id: str = "a", *, due: float = 0) -> None:
        options = wire.encode_options(JobOptions(eta=T0 + round(due * 1000)) if due else JobOptions())
        body = JobBody(1, "mail.send", wire.encode_value([]), T0 + round(self.seconds * 1000), options=options)
        job = NewJob(job_id, wire.encode_job(body), due=T0 + round(due * 1000) if due else 0)
        await self.app.broker.add(DEFAULT, [job])

    async def succeed(self, worker: Worker, delivery: Delivery, ttl: int = 60_000) -> str:
        return await worker.settle(delivery, Complete(self.record(delivery, worker.name, State.SUCCESS), ttl))

    async def retry(self, worker: Worker, delivery: Delivery, message: str, delay: float) -> str:
        job = wire.decode_job(delivery.body, 1 << 20)
        job.failures = [*job.failures, self.failure(worker.name, message, job.retries + 1)]
        job.retries += 1
        return await worker.settle(delivery, Reschedule(job, round(delay * 1000), State.RETRY))

    async def bury(self, worker: Worker, delivery: Delivery, message: str) -> str:
        failure = self.failure(worker.name, message, 1)
        record = self.record(delivery, worker.name, State.FAILURE, failure, "exhausted")
        job = wire.decode_job(delivery.body, 1 << 20)
        return await worker.settle(delivery, Bury(record, 60_000, Reason.EXHAUSTED, job))

    def failure(self, worker: str, message: str, attempt: int) -> Failure:
        return Failure("TimeoutError", message, "Traceback", T0 + round(self.seconds * 1000), attempt, worker)

    def record(
        self, delivery: Delivery, worker: str, state: State, failure: Failure | None = None, reason: str = ""
    ) -> Record:
        job = wire.decode_job(delivery.body, 1 << 20)
        now = T0 + round(self.seconds * 1000)
        failures = [*job.failures, failure] if failure else job.failures
        attempts = delivery.count + job.retries
        return Record(
            1, state, job.task, NIL, failure, reason, job.enqueued_at, now - 500, now, worker, attempts, job.retries,
            failures, 0, job.options,
        )  # fmt: skip

    async def timeline(self, job_id: str = "a") -> Timeline:
        return await self.app.job(job_id, DEFAULT).timeline()


@pytest.fixture
async def here(app: MakeApp) -> AsyncIterator[StreamQ[None]]:
    async with app() as here:
        yield here


@pytest.fixture
def stage(here: StreamQ[None], url: str) -> Iterator[Stage]:
    with redis.Redis.from_url(url) as client:
        yield Stage(here, Server(client, here.broker, DEFAULT))


def shown(timeline: Timeline) -> list[tuple[float, str, str, int, int]]:
    """Seconds after T0, what, worker, attempt, fence."""
    return [
        (round(step.at.timestamp() - T0 / 1000, 3), step.what, step.worker, step.attempt, step.fence)
        for step in timeline.steps
    ]


def reasons(timeline: Timeline) -> list[str]:
    return [step.why for step in timeline.steps]


async def test_a_job_that_went_well(stage: Stage) -> None:
    await stage.enqueue()
    stage.at(2)
    delivery = await stage.w1.one()
    stage.at(5.5)
    await stage.succeed(stage.w1, delivery)
    told = await stage.timeline()
    assert (told.id, told.queue, told.task, told.state, told.starts) == ("a", DEFAULT, "mail.send", State.SUCCESS, 1)
    assert shown(told) == [
        (0, "enqueued", "", 0, 0),
        (2, "started", "w1", 1, 1),
        (5.5, "succeeded", "w1", 1, 1),
    ]
    assert reasons(told) == ["into default", "w1 took it after 2.0 s", "w1 finished it after 3.5 s"]
    assert told.notes == [
        "a worker took it once. If its work was done twice, it was enqueued twice: the other job has an id, and a "
        "timeline, of its own"
    ]


async def test_sent_twice_because_a_lease_was_lost(stage: Stage) -> None:
    await stage.enqueue()
    first = await stage.w1.one()
    stage.at(31)
    stage.server.expire(first)
    (second,) = await stage.w2.sweep()
    stage.at(33)
    assert await stage.succeed(stage.w1, first) == "fenced"
    stage.at(34)
    assert await stage.succeed(stage.w2, second) == "ok"
    stage.at(40)
    assert await stage.bury(stage.w1, first, "too late") == "gone"
    told = await stage.timeline()
    assert shown(told) == [
        (0, "enqueued", "", 0, 0),
        (0, "started", "w1", 1, 1),
        (31, "taken-over", "w2", 2, 2),
        (33, "refused", "w1", 1, 1),
        (34, "succeeded", "w2", 2, 2),
        (40, "late", "w1", 1, 1),
    ]
    assert reasons(told)[2:] == [
        "w1 did not renew its lease for 30 s: w2 took it over, start 2",
        "its late outcome (succeeded) was refused: w2 has the job. Nothing of it was recorded, but what it did outside "
        "Redis stays done",
        "w2 finished it after 3.0 s",
        "its outcome (failed) came after the job had ended: nothing of it was recorded",
    ]
    assert (told.starts, told.state) == (2, State.SUCCESS)
    assert told.notes == [
        "a worker took it 2 times: what the task does outside Redis before it ends, as sending an e-mail, it may have "
        "done each time"
    ]


async def test_sent_twice_because_it_was_retried(stage: Stage) -> None:
    await stage.enqueue(due=1)
    stage.at(1)
    await stage.app.broker.promote(DEFAULT)
    await stage.retry(stage.w1, await stage.w1.one(), "no answer\nfrom the provider\x1b[2J", 12)
    stage.at(13)
    await stage.app.broker.promote(DEFAULT)
    second = await stage.w2.one()
    stage.at(14)
    await stage.succeed(stage.w2, second)
    told = await stage.timeline()
    assert shown(told) == [
        (0, "enqueued", "", 0, 0),
        (1, "due", "", 0, 0),
        (1, "started", "w1", 1, 1),
        (1, "retrying", "w1", 1, 1),
        (13, "due", "", 0, 0),
        (13, "started", "w2", 2, 1),
        (14, "succeeded", "w2", 2, 1),
    ]
    assert reasons(told) == [
        "into default, not before 2027-01-15T08:00:01.000Z",
        "due now",
        "w1 took it after 0.0 s",
        "TimeoutError: no answer from the provider�[2J; retried in 12 s",
        "due now",
        "w2 took it after 0.0 s, start 2: the retry after TimeoutError",
        "w2 finished it after 1.0 s",
    ]


async def test_sent_twice_because_a_dead_letter_was_retried(stage: Stage) -> None:
    await stage.enqueue()
    await stage.bury(stage.w1, await stage.w1.one(), "no answer")
    assert (await stage.timeline()).state is State.FAILURE
    stage.at(60)
    await stage.app.dead_letters().retry("a")
    stage.at(61)
    again = await stage.w1.one()
    await stage.retry(stage.w1, again, "once more", 0)
    await stage.succeed(stage.w1, await stage.w1.one())
    told = await stage.timeline()
    assert [(what, attempt) for _, what, _, attempt, _ in shown(told)] == [
        ("enqueued", 0),
        ("started", 1),
        ("failed", 1),
        ("revived", 0),
        ("started", 1),
        ("retrying", 1),
        ("started", 2),
        ("succeeded", 2),
    ]
    assert reasons(told)[2:6] == [
        "it became a dead letter",
        "somebody retried the dead letter: it begins anew, with all its retries",
        "w1 took it after 1.0 s, start 2: it was a dead letter, and somebody retried it",
        "TimeoutError: once more; retried at once",
    ]
    assert told.starts == 3


async def test_a_dead_letter_says_why(stage: Stage) -> None:
    await stage.enqueue()
    await stage.bury(stage.w1, await stage.w1.one(), "no answer")
    assert reasons(await stage.timeline())[-1] == "TimeoutError: no answer; no retry is left; it became a dead letter"


async def test_given_back_at_a_shutdown(stage: Stage) -> None:
    await stage.enqueue()
    await stage.w1.release(await stage.w1.one())
    (second,) = await stage.w2.sweep()
    await stage.succeed(stage.w2, second)
    told = await stage.timeline()
    assert shown(told)[1:] == [
        (0, "started", "w1", 1, 1),
        (0, "released", "w1", 1, 1),
        (0, "taken-over", "w2", 1, 2),
        (0, "succeeded", "w2", 1, 2),
    ]
    assert reasons(told)[2:4] == [
        "w1 gave it back: it shut down, or the queue was paused; this start does not count",
        "w1 had given it back, w2 took it, start 2",
    ]


async def test_a_worker_that_takes_its_own_job_again(stage: Stage) -> None:
    await stage.enqueue()
    first = await stage.w1.one()
    stage.server.expire(first)
    await stage.w1.sweep()
    assert await stage.succeed(stage.w1, first) == "fenced"
    assert reasons(await stage.timeline())[2:] == [
        f"w1 did not renew its lease for {LEASE // 1000} s, and took the job again itself, start 2",
        "its late outcome (succeeded) was refused: w1 itself has taken the job again since. Nothing of it was recorded,"
        " but what it did outside Redis stays done",
    ]


@pytest.mark.parametrize(
    ("settle", "what", "why"),
    [
        (State.SCHEDULED, "snoozed", "the task asked to run again in 10 min; that spends no retry"),
        (State.PENDING, "parked", "w1 does not know the task; it is offered again in 10 min"),
        ("counted", "released", "w1 gave it back after it failed (acks_on_failure=False)"),
        ("early", "acknowledged", "before it ran (acks_early): if w1 dies now, it does not run again"),
    ],
)
async def test_other_ways_to_put_it_off(stage: Stage, settle: State | str, what: str, why: str) -> None:
    await stage.enqueue()
    delivery = await stage.w1.one()
    if isinstance(settle, State):
        await stage.w1.settle(delivery, Reschedule(wire.decode_job(delivery.body, 1 << 20), 600_000, settle))
    elif settle == "early":
        await stage.w1.settle(delivery, Complete(stage.record(delivery, "w1", State.STARTED), 60_000))
    else:
        await stage.w1.settle(delivery, Release(forgive=False))
    told = await stage.timeline()
    assert (told.steps[-1].what, told.steps[-1].why) == (what, why)
    assert told.notes == []


async def test_cancelled_while_it_waited_and_while_it_ran(stage: Stage) -> None:
    await stage.enqueue("waits", due=60)
    await stage.enqueue("runs")
    delivery = await stage.w1.one()
    for job_id in ("waits", "runs"):
        await stage.app.job(job_id, DEFAULT).cancel("withdrawn")
    await stage.w1.settle(delivery, Complete(stage.record(delivery, "w1", State.CANCELLED, None, "withdrawn"), 9_000))
    waits, runs = await stage.timeline("waits"), await stage.timeline("runs")
    assert reasons(waits)[1:] == ["it was waiting, and somebody cancelled it: withdrawn"]
    assert reasons(runs)[2:] == [
        "somebody cancels it, and w1 was told: withdrawn",
        "w1 stopped it after 0.5 s: withdrawn",
    ]
    assert (waits.starts, waits.state) == (0, State.CANCELLED)


async def test_a_scheduled_job_names_its_schedule(stage: Stage) -> None:
    await stage.enqueue("cron-nightly_report-1800000000000")
    assert reasons(await stage.timeline("cron-nightly_report-1800000000000")) == [
        "by the schedule nightly_report, into default"
    ]


# ---- what is not known ------------------------------------------------------------------------------------------


async def test_a_job_that_cannot_be_read(stage: Stage) -> None:
    await stage.app.broker.add(DEFAULT, [NewJob("a", b"\xc1")])
    await stage.w1.one()
    told = await stage.timeline()
    assert ([what for _, what, *_ in shown(told)], told.state) == (["started"], State.STARTED)
    (note,) = told.notes
    assert note.startswith("the job itself cannot be read: this is what the history knows, which begins at 2027-")


async def test_it_outlives_the_record(stage: Stage) -> None:
    await stage.enqueue()
    await stage.succeed(stage.w1, await stage.w1.one(), ttl=0)
    for queue in (DEFAULT, None):
        told = await stage.app.job("a", queue).timeline()
        assert [what for _, what, *_ in shown(told)] == ["started", "succeeded"]
        assert (told.queue, told.task, told.state) == (DEFAULT, "", State.SUCCESS)
        (note,) = told.notes
        assert re.match(r"the job itself is no longer kept: .* which begins at 2027-01-15T08:00:00.000Z", note)


async def test_an_unknown_job(stage: Stage) -> None:
    await stage.enqueue()
    for queue in (DEFAULT, None):
        with pytest.raises(JobNotFound):
            await stage.app.job("b", queue).timeline()


async def test_without_a_history_the_job_itself_is_asked(app: MakeApp, url: str) -> None:
    async with app(events=0) as here:
        with redis.Redis.from_url(url) as client:
            stage = Stage(here, Server(client, here.broker, DEFAULT))
            await stage.enqueue()
            await stage.retry(stage.w1, await stage.w1.one(), "first", 0)
            stage.at(10)
            second = await stage.w2.one()
            running = await stage.timeline()
            stage.at(20)
            await stage.succeed(stage.w2, second)
            told = await stage.timeline()
    assert shown(running) == [(0, "enqueued", "", 0, 0), (0, "retrying", "w1", 1, 0)]
    assert running.notes[1:] == ["w2 has it now (fence 1): when it took it is not known"]
    assert shown(told) == [
        (0, "enqueued", "", 0, 0),
        (0, "retrying", "w1", 1, 0),
        (19.5, "started", "w2", 2, 0),
        (20, "succeeded", "w2", 2, 0),
    ]
    assert reasons(told)[1] == "TimeoutError: first; retried"
    (note,) = told.notes
    assert note.startswith("there is no history of queue 'default': it is switched off (events=0)")


async def test_what_was_trimmed_is_said_and_filled_in(app: MakeApp, url: str) -> None:
    async with app(events=50) as here:
        with redis.Redis.from_url(url) as client:
            stage = Stage(here, Server(client, here.broker, DEFAULT))
            await stage.enqueue()
            await stage.retry(stage.w1, await stage.w1.one(), "first", 3_600)
            stage.at(600)
            for n in range(200):
                await stage.enqueue(f"other{n}")
                await stage.succeed(stage.w2, await stage.w2.one())
            stage.at(3_601)
            await here.broker.promote(DEFAULT)
            await stage.succeed(stage.w2, await stage.w2.one())
            told = await stage.timeline()
    assert shown(told) == [
        (0, "enqueued", "", 0, 0),
        (0, "retrying", "w1", 1, 0),
        (3601, "due", "", 0, 0),
        (3601, "started", "w2", 2, 1),
        (3601, "succeeded", "w2", 2, 1),
    ]
    assert "start 2" not in told.steps[3].why  # how many there were is not known
    (note,) = told.notes
    assert "begins at 2027-01-15T08:10:00.000Z: what happened before was trimmed" in note


async def test_gaps_are_said(stage: Stage) -> None:
    """A worker with events=0 had it in between."""
    await stage.enqueue("other")
    await stage.w1.one()
    await stage.enqueue()
    silent = StreamQ(stage.app.link.url, namespace=stage.app.options.namespace, events=0)
    async with silent:
        silent.broker.now = stage.app.broker.now
        worker = Worker(silent.broker, "w0", DEFAULT)
        delivery = await worker.one()
        stage.at(1)
        await stage.succeed(worker, delivery)
    told = await stage.timeline()
    assert [step.what for step in told.steps] == ["enqueued", "started", "succeeded"]
    assert told.notes[0].startswith("some of this is not in the history")


# ---- the history of a queue --------------------------------------------------------------------------------------


async def test_the_history_of_a_queue(stage: Stage) -> None:
    for n in range(3):
        stage.at(n)
        await stage.enqueue(str(n))
        await stage.succeed(stage.w1, await stage.w1.one())
    queue = stage.app.queue()
    assert [(each.job_id, each.kind.value) for each in await queue.history(limit=3)] == [
        ("2", "succeeded"),
        ("2", "started"),
        ("1", "succeeded"),
    ]
    assert [each.job_id for each in await queue.history(kinds={"started"})] == ["2", "1", "0"]
    assert await queue.history(limit=0) == []
    assert await queue.history(kinds=[]) == []
    with pytest.raises(ConfigurationError, match="'begun' is no kind of transition: there are started, taken-over"):
        await queue.history(kinds=["begun"])
