"""Why a job does not run: each cause on real servers, with the exact sentence.

Workers are played by hand: what they say of themselves is set, and the clock stands still.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
import redis

from streamq import Explanation, Job, QueueFull, State, StreamQ
from streamq.broker import wire
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.inspector import Inspector, WorkerInfo
from streamq.core.ids import new_id
from streamq.core.job import Delivery, Failure, JobBody, Reason, Record
from streamq.core.outcome import NIL, Bury, Complete, Release, Reschedule, Settlement
from tests.conftest import PROGRAMS, MakeApp
from tests.worker.waits import Time

NOW = 1_800_000_000_000
LEASE = 30_000
SLOW = Failure("builtins.TimeoutError", "too slow.", "Traceback", NOW, 1, "w3")


class Shop:
    """An application, a clock that stands still, and workers by hand."""

    def __init__(self, app: StreamQ[Any]) -> None:
        self.app = app
        self.time = Time(NOW)
        self.time.rules(app)
        self.requests = itertools.count(1)

        @app.task(name="shop.add", max_retries=5)
        async def add(number: int = 1) -> None: ...

        self.add = add

    async def enqueue(self, **options: Any) -> Job[Any]:
        return await self.add.using(**options).enqueue()

    def lives(
        self,
        name: str = "w3",
        *,
        queue: str = "default",
        tasks: Sequence[str] = ("shop.add",),
        concurrency: int = 10,
        running: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        info = WorkerInfo(name, "host", 7, "0.1.0", [queue], concurrency, list(tasks), NOW, list(running))
        renewer = self.app.broker.renewer()
        renewer.renew(queue, name, [], msgspec.msgpack.encode(info), LEASE)
        renewer.close()

    async def take(self, name: str = "w3", queue: str = "default") -> Delivery:
        await self.app.broker.prepare(queue)
        turn = await self.app.broker.turn(queue, name, [], 1, request=next(self.requests))
        (delivery,) = turn.deliveries
        return delivery

    async def settle(self, delivery: Delivery, settlement: Settlement, name: str = "w3") -> None:
        pairs = [(delivery, settlement)]
        turn = await self.app.broker.turn(delivery.queue, name, pairs, 0, request=next(self.requests))
        assert turn.replies == ["ok"]

    async def silent_for(self, delivery: Delivery, ms: int, name: str = "w3") -> None:
        stream = self.app.broker.keys(delivery.queue).stream(delivery.priority)
        await self.app.broker.command("XCLAIM", stream, "w", name, 0, delivery.entry, "IDLE", ms, "JUSTID")


@pytest.fixture
async def shop(app: MakeApp) -> Shop:
    made = Shop(app())
    await made.app.open()
    return made


def body(delivery: Delivery, **changes: Any) -> JobBody:
    return msgspec.structs.replace(wire.decode_job(delivery.body, 1_000_000), **changes)


def ended(state: State, **changes: Any) -> Record:
    record = Record(1, state, "shop.add", NIL, None, "", NOW - 9_000, NOW - 3_000, NOW, "w3", 1, 0)
    return msgspec.structs.replace(record, **changes)


async def said(job: Job[Any]) -> str:
    found = await job.explain()
    assert isinstance(found, Explanation)
    if found.state is not None:
        assert found.state is await job.status()
    return str(found)


# ---- it could run ---------------------------------------------------------------------------------------------


async def test_no_worker_anywhere(shop: Shop) -> None:
    assert await said(await shop.enqueue()) == (
        "No live worker serves the queue 'default', nor any other queue of its namespace."
        " streamq worker MODULE:APP -Q default"
    )


async def test_no_worker_on_this_queue(shop: Shop) -> None:
    await shop.app.enqueue("elsewhere")
    shop.lives()
    assert await said(await shop.enqueue(queue="emails")) == (
        "No live worker serves the queue 'emails': they serve 'default'. streamq worker MODULE:APP -Q emails"
    )


async def test_a_worker_that_is_silent_for_two_leases_is_no_live_one(shop: Shop) -> None:
    job = await shop.enqueue()
    shop.lives()
    assert (await said(job)).startswith("It is next")
    shop.time.ms += 2 * LEASE + 1
    assert (await said(job)).startswith("No live worker serves the queue 'default'")


async def test_a_task_that_no_worker_knows(shop: Shop) -> None:
    shop.lives(tasks=["shop.add", "mail.send", "shop.adds"])
    job = await shop.app.enqueue("shop.ad")
    assert await said(job) == (
        "No worker of the queue 'default' knows the task 'shop.ad' (nearest: shop.add, shop.adds)."
        " Start a worker whose application imports the module of 'shop.ad', or mend the name."
    )
    assert await said(await shop.app.enqueue("zzz")) == (
        "No worker of the queue 'default' knows the task 'zzz'."
        " Start a worker whose application imports the module of 'zzz', or mend the name."
    )


async def test_a_task_that_one_of_the_workers_knows(shop: Shop) -> None:
    shop.lives("w1", tasks=["mail.send"])
    shop.lives("w2")
    assert "knows the task" not in await said(await shop.enqueue())


async def test_a_paused_queue(shop: Shop) -> None:
    shop.lives()
    job = await shop.enqueue()
    await shop.app.queue().pause()
    shop.time.ms += 180_000
    assert await said(job) == "The queue 'default' has been paused for 3 min. streamq queues resume default"
    await shop.app.queue().pause("the provider is down.")
    assert await said(job) == (
        "The queue 'default' has been paused for 3 min (the provider is down). streamq queues resume default"
    )


async def test_behind_others_of_busy_workers(shop: Shop) -> None:
    running = [await shop.enqueue() for _ in range(3)]
    for worker in ("w1", "w2", "w2"):
        await shop.take(worker)
    shop.lives("w1", concurrency=1, running=[(running[0].id, "shop.add", NOW)])
    shop.lives("w2", concurrency=2)  # it has not told yet what it runs
    first, second, third = [await shop.enqueue() for _ in range(3)]
    urgent = await shop.enqueue(priority=9)
    full = "the 2 workers of the queue 'default' have 3 of 3 slots taken."
    more = "More workers, or a higher --concurrency, would start it sooner."
    assert await said(urgent) == f"It is next, and {full} {more}"
    assert await said(first) == f"It waits behind 1 job, and {full} {more}"
    assert await said(third) == f"It waits behind 3 jobs, and {full} {more}"
    assert await said(second) == f"It waits behind 2 jobs, and {full} {more}"


async def test_behind_very_many(shop: Shop) -> None:
    shop.lives(concurrency=1)
    await shop.app.enqueue_many(shop.add.s(n) for n in range(120))
    await shop.take()
    assert (await said(await shop.enqueue())).startswith("It waits behind 100 jobs or more, and the only worker of")


async def test_a_worker_has_a_free_slot(shop: Shop) -> None:
    shop.lives()
    assert await said(await shop.enqueue()) == (
        "It is next, and the only worker of the queue 'default' has 0 of 10 slots taken: it starts within a moment."
        " If it still waits in a minute: streamq doctor"
    )


# ---- it waits for a time ----------------------------------------------------------------------------------------


async def test_due_later(shop: Shop) -> None:
    shop.lives()
    assert await said(await shop.enqueue(countdown="3m")) == "It is due in 3 min."


async def test_due_later_and_something_else_in_its_way(shop: Shop) -> None:
    job = await shop.enqueue(countdown="3m")
    assert await said(job) == (
        "It is due in 3 min. No live worker serves the queue 'default', nor any other queue of its namespace."
        " streamq worker MODULE:APP -Q default"
    )


async def test_overdue(shop: Shop) -> None:
    job = await shop.enqueue(countdown=5)
    shop.time.ms += 17_000
    assert (await said(job)).startswith("It was due 12 s ago. No live worker serves the queue 'default'")
    shop.lives()
    assert await said(job) == "It was due 12 s ago. A worker looks within 10 s."


async def test_a_retry(shop: Shop) -> None:
    shop.lives()
    job = await shop.enqueue()
    delivery = await shop.take()
    again = body(delivery, retries=2, failures=[SLOW, SLOW])
    await shop.settle(delivery, Reschedule(again, 12_000, State.RETRY))
    assert await said(job) == "Retry 2 of 5 comes in 12 s, after TimeoutError: too slow."


async def test_a_retry_of_a_task_that_is_not_known_here(shop: Shop, app: MakeApp) -> None:
    shop.lives()
    job = await shop.enqueue()
    delivery = await shop.take()
    await shop.settle(delivery, Reschedule(body(delivery, retries=2, failures=[SLOW]), 12_000, State.RETRY))
    stranger = app()
    shop.time.rules(stranger)
    assert await said(stranger.job(job.id)) == "Retry 2 comes in 12 s, after TimeoutError: too slow."


async def test_a_retry_whose_call_allowed_another_number(shop: Shop) -> None:
    shop.lives()
    job = await shop.enqueue(max_retries=7)
    delivery = await shop.take()
    await shop.settle(delivery, Reschedule(body(delivery, retries=1, failures=[SLOW]), 500, State.RETRY))
    assert await said(job) == "Retry 1 of 7 comes in 0.5 s, after TimeoutError: too slow."


async def test_a_snooze(shop: Shop) -> None:
    shop.lives()
    job = await shop.enqueue()
    delivery = await shop.take()
    await shop.settle(delivery, Reschedule(body(delivery, started_at=NOW), 600_000, State.SCHEDULED))
    assert await said(job) == "It asked to be run later, and is due in 10 min."


async def test_parked_because_its_task_is_unknown(shop: Shop) -> None:
    shop.lives(tasks=["shop.adds"])
    job = await shop.enqueue()
    delivery = await shop.take()
    await shop.settle(delivery, Reschedule(body(delivery, parked_at=NOW), 5_000, State.PENDING))
    shop.time.ms += 3_000
    assert await said(job) == (
        "No worker of the queue 'default' knows the task 'shop.add' (nearest: shop.adds)."
        " It is offered again in 2.0 s, and becomes a dead letter in 59 min 57 s."
        " Start a worker whose application imports the module of 'shop.add', or mend the name."
    )
    shop.lives("w4")
    assert await said(job) == ("Its task 'shop.add' was unknown to a worker, and is known now: offered again in 2.0 s.")


# ---- a worker holds it --------------------------------------------------------------------------------------


async def test_running_with_a_good_lease(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.silent_for(await shop.take(), 12_000)
    shop.lives(running=[(job.id, "shop.add", NOW - 40_000)])
    assert await said(job) == ("It has been running on w3 for 40 s. Its lease is good: renewed 12 s ago, for 30 s.")


async def test_running_on_a_real_worker(app: MakeApp) -> None:
    here, gate, begun = app(lease="7s"), asyncio.Event(), asyncio.Event()

    @here.task
    async def wait() -> None:
        begun.set()
        await gate.wait()

    async with here, here.worker(name="w3"):
        job = await wait.enqueue()
        await begun.wait()
        pattern = r"It has been running on w3 for \d\.\d s\. Its lease is good: renewed \d\.\d s ago, for 7\.0 s\."
        assert re.fullmatch(pattern, await said(job))
        elsewhere = app()  # as an operator's shell, which knows nothing of the application's lease
        assert re.fullmatch(pattern, await said(elsewhere.job(job.id)))
        gate.set()
        await job.result(timeout=5)
        pattern = rf"It succeeded \d\.\d s ago on w3, in \d\.\d s\. streamq result {job.id}"
        assert re.fullmatch(pattern, await said(job))


async def test_running_and_about_to_be_lost(app: MakeApp) -> None:
    shop = Shop(app(lease="60s"))
    job = await shop.enqueue()
    delivery = await shop.take()
    await shop.silent_for(delivery, 40_000)
    shop.lives(running=[(job.id, "shop.add", NOW - 40_000)])
    assert await said(job) == (
        "It is held by w3 for 40 s, which has not renewed its lease for 40 s: others may take it over in 20 s."
        " Nothing need be done; the process or the log of w3 tells why."
    )
    await shop.silent_for(delivery, 75_000)
    assert await said(job) == (
        "It is held by w3 for 40 s, which has not renewed its lease for 1 min 15 s: since 15 s others may take it over."
        " Nothing need be done; the process or the log of w3 tells why."
    )


async def test_lost_and_nobody_there_to_take_it_over(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.silent_for(await shop.take(), 42_000)
    assert await said(job) == (
        "It is held by w3, which has not renewed its lease for 42 s: since 12 s others may take it over."
        " No live worker serves the queue 'default', nor any other queue of its namespace."
        " streamq worker MODULE:APP -Q default"
    )


async def test_the_workers_are_asked_for_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    workers = Inspector.workers

    async def counted(inspector: Inspector, queue: str) -> list[WorkerInfo]:
        asked.append(queue)
        return await workers(inspector, queue)

    monkeypatch.setattr(Inspector, "workers", counted)
    job = await shop.enqueue()
    await shop.silent_for(await shop.take(), 42_000)
    await job.explain()
    assert asked == ["default"]


async def test_held_ready_by_a_full_worker(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.take()
    shop.lives(concurrency=1, running=[("another", "shop.add", NOW)])
    assert await said(job) == (
        "w3 holds it ready, and all of its slots are taken (concurrency 1)."
        " It starts when one is free; a lower prefetch leaves such jobs to other workers."
    )


async def test_being_cancelled(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.take()
    shop.lives(running=[(job.id, "shop.add", NOW)])
    await job.cancel("withdrawn")
    assert await said(job) == (
        "It is being cancelled (withdrawn): w3 was told, and still runs it."
        " A task ends at its next await; a plain def cannot be interrupted."
    )


async def test_given_back(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.settle(await shop.take(), Release())
    shop.lives()
    assert (await said(job)).startswith("It is next, and the only worker of the queue 'default' has 0 of 10 slots")


async def test_acknowledged_early(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.settle(await shop.take(), Complete(ended(State.STARTED, started_at=NOW - 5_000), 60_000))
    shop.lives(running=[(job.id, "shop.add", NOW - 5_000)])
    assert await said(job) == "It has been running on w3 for 5.0 s, acknowledged before it began (acks_early)."
    shop.lives()
    assert await said(job) == (
        "It was acknowledged before it began (acks_early), 5.0 s ago, and w3 does not run it any more: its end is not"
        " known. It will not run again: enqueue it anew if it has to."
    )


# ---- it ended -----------------------------------------------------------------------------------------------


async def test_succeeded(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.settle(await shop.take(), Complete(ended(State.SUCCESS), 600_000))
    shop.time.ms += 300_000
    assert await said(job) == f"It succeeded 5 min ago on w3, in 3.0 s. streamq result {job.id}"


async def test_cancelled(shop: Shop) -> None:
    job, other = await shop.enqueue(), await shop.enqueue()
    await job.cancel("the order was withdrawn")
    await other.cancel()
    shop.time.ms += 8_000
    assert await said(job) == "It was cancelled 8.0 s ago: the order was withdrawn."
    assert await said(other) == "It was cancelled 8.0 s ago."


async def test_expired(shop: Shop) -> None:
    job = await shop.enqueue(expires=60)
    delivery = await shop.take()
    record = ended(State.EXPIRED, enqueued_at=NOW, options=body(delivery).options, finished_at=NOW + 90_000)
    await shop.settle(delivery, Complete(record, 600_000))
    shop.time.ms += 100_000
    assert await said(job) == (
        "It expired 10 s ago: no worker could start it within 1 min. Add workers, or allow it more time."
    )


DEAD = [
    (Reason.FAILED, "builtins.KeyError", "'x'", "it failed, and this is not retried: KeyError: 'x'"),
    (Reason.EXHAUSTED, "shop.Down", "no", "it failed on its last permitted attempt: shop.Down: no"),
    (Reason.REJECTED, "streamq.core.outcome.Reject", "no such address", "the task gave it up: no such address"),
    (
        Reason.CRASHED, "streamq.Crashed", "4 deliveries ended without a report: the worker process died",
        "4 deliveries ended without a report: the worker process died",
    ),
    (Reason.UNREADABLE, "streamq.Unreadable", "not msgpack", "it could not be read: not msgpack"),
    (
        Reason.UNKNOWN, "streamq.UnknownTask", "no worker of this queue has registered the task 'x' for an hour",
        "no worker of this queue has registered the task 'x' for an hour",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "error", "message", "why"), DEAD, ids=[row[0].value for row in DEAD])
@pytest.mark.parametrize("ttl", [600_000, 0], ids=["recorded", "record gone"])
async def test_a_dead_letter(shop: Shop, reason: Reason, error: str, message: str, why: str, ttl: int) -> None:
    job = await shop.enqueue()
    failure = Failure(error, message, "", NOW, 1, "w3")
    delivery = await shop.take()
    record = ended(State.FAILURE, error=failure, reason=reason.value, attempts=4)
    await shop.settle(delivery, Bury(record, ttl, reason, body(delivery)))
    shop.time.ms += 75_000
    assert str(await job.explain()) == (
        f"It has been a dead letter of the queue 'default' for 1 min 15 s, after 4 attempts: {why}."
        f" streamq dlq show {job.id}, and once the cause is mended streamq dlq retry {job.id}"
    )


async def test_a_dead_letter_that_was_discarded(shop: Shop) -> None:
    job = await shop.enqueue()
    delivery = await shop.take()
    record = ended(State.FAILURE, error=SLOW, reason="failed")
    await shop.settle(delivery, Bury(record, 600_000, Reason.FAILED, body(delivery)))
    await shop.app.dead_letters().discard(job.id)
    assert await said(job) == (
        "It failed 0.0 s ago: TimeoutError: too slow. Its dead letter was discarded: enqueue it anew."
    )


# ---- nobody knows it ----------------------------------------------------------------------------------------


async def test_finished_and_its_result_expired(shop: Shop) -> None:
    job = await shop.enqueue()
    await shop.settle(await shop.take(), Complete(ended(State.SUCCESS), 0))
    shop.time.ms += 7_200_000
    assert str(await job.explain()) == (
        "It succeeded 2 h ago, and nothing is kept of it any more: results are kept for 1 h (result_ttl),"
        " and not at all with ignore_result."
    )


async def test_an_unknown_id(shop: Shop) -> None:
    await shop.enqueue(queue="emails")
    name = shop.app.options.namespace
    found = await shop.app.job("invoice-42").explain()
    assert found.state is None
    assert str(found) == (
        f"There is no job 'invoice-42' in the queues 'default', 'emails' of the namespace '{name}'. Look at the id,"
        " --namespace and --url; or it has ended, and its record is gone: results are kept for 1 h (result_ttl)."
    )


async def test_an_unknown_id_that_is_old(shop: Shop) -> None:
    old = new_id(NOW - 7_200_000)
    assert str(await shop.app.job(old).explain()) == (
        f"There is no job '{old}' in the queue 'default' of the namespace '{shop.app.options.namespace}'."
        " Its id was made 2 h ago, and results are kept for 1 h (result_ttl)."
    )


async def test_a_job_that_is_in_another_queue_than_was_said(shop: Shop) -> None:
    job = await shop.enqueue(queue="emails")
    assert (await shop.app.job(job.id, "default").explain()).cause.startswith(
        "No live worker serves the queue 'emails'"
    )


# ---- the server is full ---------------------------------------------------------------------------------------

FULL = "Redis is out of memory (N MB used, maxmemory N MB): new jobs are refused, and due ones are not moved."
ROOM = "Let the workers catch up, raise maxmemory, or see what else fills it: redis-cli INFO memory"


@pytest.fixture(params=PROGRAMS)
def small(request: pytest.FixtureRequest) -> Iterator[str]:
    with EmbeddedServer.start(binary=PROGRAMS[request.param]) as server:
        yield server.url


def fill(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("filler", b"x" * 8_000_000)
        client.config_set("maxmemory", 5_000_000)


def without_numbers(text: str) -> str:
    return "".join("N" if each.isdigit() else each for each in text).replace("NN", "N")


async def test_out_of_memory(small: str) -> None:
    app: StreamQ[Any] = StreamQ(small, namespace="full", timeout=1)
    shop = Shop(app)
    async with app:
        late, queued = await shop.enqueue(countdown=5), await shop.enqueue()
        shop.time.ms += 17_000
        shop.lives()
        fill(small)
        with pytest.raises(QueueFull):
            await shop.enqueue()
        assert without_numbers(await said(late)) == f"It was due N s ago. {FULL} {ROOM}"
        assert without_numbers(await said(queued)) == f"{FULL} {ROOM}"
        assert without_numbers(str(await app.job("refused").explain())) == (
            f"There is no job 'refused' in the queue 'default' of the namespace 'full'. {FULL} {ROOM}"
        )
