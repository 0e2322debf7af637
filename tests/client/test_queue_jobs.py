"""The jobs of a queue as values, running one again now, dead letters counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from streamq import ConfigurationError, JobError, JobNotFound, Restart, State, StreamQ, WorkerInfo
from streamq.broker.history import History, TransitionKind
from streamq.broker.renewer import Held
from streamq.core.job import Reason
from streamq.core.outcome import Complete
from tests.client.byhand import Hand, record

MakeApp = Callable[..., StreamQ[Any]]


async def finish(app: StreamQ[Any], hand: Hand) -> None:
    await app.broker.promote("default")
    for delivery in await hand.take(1_000):
        await hand.succeed(delivery)


async def test_jobs_are_what_their_handles_say(app: MakeApp) -> None:
    here = app()
    hand = Hand(here)
    for name in ("done", "dead", "again"):
        await here.send_task("mail.send", (1,), job_id=name, max_retries=3)
    done, dead, again = await hand.take()
    await hand.succeed(done)
    await hand.bury(dead)
    await hand.postpone(again, State.RETRY)
    await here.send_task("mail.copy", job_id="queued", priority=4, headers={"trace": "1"})
    jobs = await here.queue().jobs()
    assert [(job.id, job.state) for job in jobs] == [
        ("again", "RETRY"), ("queued", "QUEUED"), ("dead", "FAILURE"), ("done", "SUCCESS"),
    ]  # fmt: skip
    assert jobs == [await here.job(job.id).info() for job in jobs]
    assert [job.id for job in await here.queue().jobs(limit=2)] == ["again", "queued"]
    assert await here.queue().jobs(limit=0) == []
    assert [job.id for job in await here.queue().jobs("FAILURE")] == ["dead"]  # type: ignore[arg-type]
    assert [job.id for job in await here.queue().jobs(State.QUEUED, task="mail.*")] == ["queued"]
    assert [job_id async for job_id in here.queue().ids(State.RETRY, State.SUCCESS)] == ["again", "done"]
    assert [job_id async for job_id in here.queue().ids(task="mail.c*")] == ["queued"]
    assert await here.queue("empty").jobs() == []
    with pytest.raises(ConfigurationError, match="state='RUNNING' is no state of a job: there are PENDING, "):
        await here.queue().jobs("RUNNING")  # type: ignore[arg-type]
    await here.job("again").cancel()
    await finish(here, hand)


async def test_a_running_job_runs_since_its_worker_says_so(app: MakeApp) -> None:
    here = app()
    hand = Hand(here)
    await here.send_task("t", job_id="told")
    await here.send_task("t", job_id="young")
    told, young = await hand.take()
    since = here.broker.clock.now_ms() - 60_000
    info = WorkerInfo("hand", "host", 1, "1", ["default"], 1, [], 0, running=[("told", "t", since)])
    renewer = here.broker.renewer()
    held = [Held(each.priority, each.entry.decode(), each.count, each.job_id) for each in (told, young)]
    try:
        renewer.renew("default", "hand", held, msgspec.msgpack.encode(info), 30_000)
    finally:
        renewer.close()
    first, second = await here.queue().jobs(State.STARTED)
    assert first.started_at is not None
    assert (round(first.started_at.timestamp() * 1000), first.worker) == (since, "hand")
    assert second.run is not None
    assert second.run < 30
    await hand.succeed(told)
    await hand.succeed(young)
    await here.broker.leave("default", "hand")


# ---- running one again now ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.RETRY, State.SCHEDULED, State.PENDING])
async def test_what_waits_is_due_now(app: MakeApp, state: State) -> None:
    here = app()
    hand = Hand(here)
    job = await here.enqueue("t")
    await hand.postpone((await hand.take())[0], state)
    assert await job.retry_now() is Restart.DUE
    assert (await here.broker.promote("default"))[0] == 1
    with pytest.raises(JobError, match="waits for a worker already"):
        await job.retry_now()
    kinds = [each.kind for each in await History(here.broker).of_job("default", job.id)]
    assert TransitionKind.HASTENED in kinds
    await finish(here, hand)


async def test_a_worker_runs_it_at_once(app: MakeApp) -> None:
    here = app()

    @here.task
    async def hello() -> str:
        return "hello"

    async with here, here.worker():
        job = await hello.using(countdown="1h").enqueue()
        assert await job.retry_now() == "due"
        assert await job.result(timeout=9) == "hello"  # the promoter would look after 10 s, were it not rung


async def test_a_dead_letter_is_put_back(app: MakeApp) -> None:
    here = app()
    hand = Hand(here)
    job = await here.enqueue("t")
    await hand.bury((await hand.take())[0])
    await here.broker.line("commands").call("DEL", here.broker.keys("default").records + job.id)
    assert await job.status() is State.FAILURE  # the letter outlives the record
    assert (await here.job(job.id).info()).error is not None
    assert await job.retry_now() is Restart.REVIVED
    assert await job.status() is State.QUEUED
    await finish(here, hand)


async def test_what_cannot_be_run_again(app: MakeApp) -> None:
    here = app()
    hand = Hand(here)
    done, dead, torn, expired, held = [await here.enqueue("t") for _ in range(5)]
    first, second, third, fourth, fifth = await hand.take()
    with pytest.raises(JobError, match=f"{held.id} is running"):
        await held.retry_now()
    await hand.succeed(first)
    await hand.bury(second)
    await hand.bury(third, Reason.UNREADABLE)
    await hand.settle(fourth, Complete(record(State.EXPIRED), 60_000))
    await hand.succeed(fifth)
    await here.dead_letters().discard(dead.id)
    for job, why in ((done, "ended as SUCCESS"), (dead, "dead letter was discarded"), (expired, "ended as EXPIRED")):
        with pytest.raises(JobError, match=why) as caught:
            await job.retry_now()
        assert caught.value.job_id == job.id
    with pytest.raises(JobError, match="could not be read"):
        await torn.retry_now()
    with pytest.raises(JobNotFound):
        await here.job("nobody").retry_now()


# ---- dead letters -------------------------------------------------------------------------------------------


async def test_dead_letters_are_counted_and_bulk_verbs_tell_how_far_they_are(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.client.dead.PAGE", 2)
    here = app()
    hand, letters = Hand(here), here.dead_letters()
    for n in range(7):
        await here.enqueue("mail.send" if n % 2 else "pay")
    for delivery in await hand.take():
        await hand.bury(delivery)
    assert await letters.count() == 7
    assert await letters.count(task="mail.*") == 3
    assert await letters.count(error="KeyError") == 0
    assert await letters.count(older_than="1000w") == 0
    told: list[int] = []
    assert await letters.retry(task="mail.*", progress=told.append) == 3
    assert sum(told) == 3
    assert len(told) > 1
    told.clear()
    assert await letters.discard(progress=told.append) == 4
    assert sum(told) == 4
    assert await letters.count() == 0
    await finish(here, hand)
