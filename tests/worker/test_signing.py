"""Signed jobs on their whole way, and what is forged: a dead letter, whose task was never called."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from msgspec.structs import replace

from streamq import ConfigurationError, JobError, JobFailed, Retry, Snooze, State, StreamQ
from streamq.broker import wire
from streamq.broker.broker import NewJob
from streamq.client.settings import app_options
from streamq.core.job import NO_OPTIONS, JobBody, Reason
from streamq.core.signing import Keyring
from tests.conftest import MakeApp
from tests.worker.test_misfits import crash_with_all
from tests.worker.waits import until

OLD, NEW = ("2026-10", b"an old secret of 22 b."), ("2026-11", b"a new secret of 21 b.")


class Ledger(list[Any]):
    """What the tasks were called with."""


def tasks(here: StreamQ[Any], called: Ledger) -> StreamQ[Any]:
    @here.task(name="note")
    async def note(word: str) -> str:
        called.append(word)
        return word

    @here.task(name="fail_once", max_retries=2, default_retry_delay=0.01)
    async def fail_once(word: str) -> str:
        called.append(word)
        if called.count(word) == 1:
            raise Retry(countdown=0.01)
        if called.count(word) == 2:
            raise Snooze(0.01)
        return word

    @here.task(name="early", acks_early=True, max_retries=1)
    async def early(word: str) -> str:
        called.append(word)
        if called.count(word) == 1:
            raise Retry(countdown=0.01)
        return word

    @here.task(name="fail")
    async def fail() -> None:
        raise ValueError("no")

    return here


async def body_of(here: StreamQ[Any], job_id: str, queue: str = "default") -> JobBody:
    found = await here.broker.find(queue, job_id)
    assert found.body is not None
    return wire.decode_job(found.body, 1 << 20)


async def test_signed_jobs_run_whatever_happens_to_them_on_the_way(app: MakeApp) -> None:
    called = Ledger()
    here = tasks(app(lease="0.3s", signing_keys=[NEW, OLD]), called)
    async with here:
        note = here.tasks["note"]
        jobs = [
            await note.enqueue("plain"),
            await note.using(countdown=0.05).enqueue("later"),
            await note.using(job_id="mine").enqueue("own id"),
            await note.using(idempotency_key="k", headers={"trace": "1"}).enqueue("key"),
            await here.tasks["fail_once"].enqueue("again"),
            await here.tasks["early"].enqueue("early"),
            *await here.enqueue_many(note.s(f"many {n}") for n in range(3)),
        ]
        await crash_with_all(here, 2)
        async with here.worker():
            results = [await job.result(timeout=10) for job in jobs]
        assert results == ["plain", "later", "own id", "key", "again", "early", "many 0", "many 1", "many 2"]
        assert await here.broker.dead("default") == []
    assert called.count("again") == 3
    assert called.count("early") == 2


async def test_schedules_are_signed(app: MakeApp) -> None:
    called = Ledger()
    here = tasks(app(lease="1s", signing_keys=[NEW]), called)

    @here.every("0.1s")
    @here.task(name="tick")
    async def tick() -> None:
        called.append("tick")

    async with here, here.worker():
        await until(lambda: called.count("tick") >= 2)
        assert await here.broker.dead("default") == []


async def test_a_job_that_waits_for_a_worker_that_knows_it_stays_signed(app: MakeApp) -> None:
    called = Ledger()
    old, new = app(lease="1s", signing_keys=[NEW]), tasks(app(lease="1s", signing_keys=[NEW]), called)
    async with old, new:
        job = await new.tasks["note"].enqueue("parked")
        async with old.worker():

            async def parked() -> bool:
                return await job.status() is State.PENDING

            await until(parked)
        async with new.worker():
            assert await job.result(timeout=10) == "parked"


async def forge(here: StreamQ[Any]) -> dict[str, tuple[str, bytes]]:
    """Where, under which id and as which bytes an attacker writes."""
    keys = here.options.signing_keys
    namespace = here.options.namespace
    plain = JobBody(1, "note", wire.encode_value(["forged"]), 1_750_000_000_000)

    def signed(ring: Keyring | None, queue: str, job_id: str, namespace: str = namespace) -> JobBody:
        assert ring is not None
        return replace(plain, options=ring.sign(namespace, queue, job_id, plain))

    good, strange, stolen = signed(keys, "default", "good"), Keyring([("k", b"x" * 16)]), Keyring([(NEW[0], b"x" * 16)])
    return {
        "unsigned": ("default", wire.encode_job(plain)),
        "of-another-key": ("default", wire.encode_job(signed(strange, "default", "of-another-key"))),
        "of-a-stolen-key-id": (
            "default", wire.encode_job(signed(stolen, "default", "of-a-stolen-key-id"))
        ),
        "of-another-job": ("default", wire.encode_job(good)),
        "from-another-queue": ("other", wire.encode_job(signed(keys, "default", "from-another-queue"))),
        "from-another-namespace": (
            "default", wire.encode_job(signed(keys, "default", "from-another-namespace", "elsewhere"))
        ),
        "other-arguments": (
            "default",
            wire.encode_job(replace(signed(keys, "default", "other-arguments"), args=wire.encode_value(["evil"]))),
        ),
        "other-task": ("default", wire.encode_job(replace(signed(keys, "default", "other-task"), task="fail"))),
        "unknown-task": ("default", wire.encode_job(replace(plain, task="no.such"))),
        "options-cut-off": (
            "default", wire.encode_job(replace(signed(keys, "default", "options-cut-off"), options=NO_OPTIONS))
        ),
    }  # fmt: skip


async def test_what_is_forged_is_never_called(app: MakeApp) -> None:
    called = Ledger()
    here = tasks(app(lease="1s", signing_keys=[NEW, OLD]), called)
    async with here:
        forged = await forge(here)
        for job_id, (queue, body) in forged.items():
            await here.broker.add(queue, [NewJob(job_id, body)])
        after = [await here.tasks["note"].using(queue=queue).enqueue(queue) for queue in ("default", "other")]
        async with here.worker(queues=["default", "other"]):
            for job in after:
                await job.result(timeout=10)

            async def all_dead() -> bool:
                return sum([len(await here.broker.dead(queue)) for queue in ("default", "other")]) == len(forged)

            await until(all_dead)
            with pytest.raises(JobFailed, match="BadSignature: it is not signed"):
                await here.job("unsigned", "default").result(timeout=5)
        letters = [letter for queue in ("default", "other") for letter in await here.broker.dead(queue)]
        assert {letter.job_id: letter.body for letter in letters} == {k: body for k, (_, body) in forged.items()}
        assert {letter.reason for letter in letters} == {Reason.BAD_SIGNATURE}
        assert {letter.task for letter in letters} == {"note", "fail", "no.such"}
        assert "was not run: it is not signed" in str(await here.job("unsigned", "default").explain())
        assert sorted(called) == ["default", "other"]


async def test_old_keys_verify_and_unknown_ones_do_not(app: MakeApp) -> None:
    called = Ledger()
    old, new = app(signing_keys=[OLD]), tasks(app(lease="1s", signing_keys=[NEW, OLD]), called)
    tasks(old, called)
    async with old, new:
        job = await old.tasks["note"].enqueue("old")
        async with new.worker():
            assert await job.result(timeout=10) == "old"
        job = await new.tasks["note"].enqueue("new")
        async with old.worker():
            with pytest.raises(JobFailed, match="'2026-11', which this worker does not have"):
                await job.result(timeout=10)
        assert await new.dead_letters().retry(job.id) == 1  # the key has arrived: it runs as it is
        async with new.worker():

            async def ran() -> bool:
                return "new" in called

            await until(ran)


async def test_a_dead_letter_whose_expiry_is_forgotten_is_signed_anew_by_who_may(app: MakeApp) -> None:
    called = Ledger()
    here, blind = tasks(app(lease="1s", signing_keys=[NEW]), called), app()
    async with here, blind:
        failed = await here.tasks["fail"].using(expires=60).enqueue()
        async with here.worker():
            with pytest.raises(JobFailed):
                await failed.result(timeout=10)
        with pytest.raises(JobError, match="STREAMQ_SIGNING_KEYS"):
            await blind.dead_letters().retry(failed.id)
        assert await here.dead_letters().retry(failed.id) == 1
        async with here.worker():
            await until(lambda: here.broker.dead("default"))
        (letter,) = await here.broker.dead("default")
        assert letter.reason is Reason.FAILED  # it was run again, as itself
        changed = replace(await _job(letter.body), args=wire.encode_value([1]))
        changed.options = wire.encode_options(replace(wire.decode_options(changed.options), expires=5))
        await here.broker.discard("default", [letter.job_id])
        await here.broker.add("default", [NewJob("forged", wire.encode_job(changed))])
        async with here.worker():
            await until(lambda: here.broker.dead("default"))
        with pytest.raises(JobError, match="does not fit"):  # it is not laundered
            await here.dead_letters().retry("forged")


async def _job(body: bytes) -> JobBody:
    return wire.decode_job(body, 1 << 20)


async def test_without_keys_nothing_is_signed_nor_looked_at(app: MakeApp) -> None:
    called = Ledger()
    signs, plain = app(signing_keys=[NEW]), tasks(app(lease="1s"), called)
    async with signs, plain:
        signed = await signs.enqueue("note", "signed")
        assert (await body_of(signs, signed.id)).options != NO_OPTIONS
        job = await plain.tasks["note"].enqueue("plain")
        assert (await body_of(plain, job.id)).options == NO_OPTIONS
        async with plain.worker():
            assert await asyncio.gather(signed.result(timeout=10), job.result(timeout=10)) == ["signed", "plain"]


# ---- the setting ---------------------------------------------------------------------------------------------


def test_the_variable() -> None:
    told = {
        "STREAMQ_SIGNING_KEYS": ",".join(f"{kid}:{base64.b64encode(secret).decode()}" for kid, secret in (NEW, OLD))
    }
    assert app_options({}, told).signing_keys == Keyring([NEW, OLD])
    assert app_options({}, {}).signing_keys is None


@pytest.mark.parametrize(
    "given",
    [
        [], [("k", b"short")], [("k", "a text of 16 char")], [("a b", b"x" * 16)], [("", b"x" * 16)],
        [("k", b"x" * 16)] * 2, 5, [b"xxxxxxxxxxxxxxxxxxxx"], "k", "k:hunter2!", "k:c2hvcnQ=", [("k" * 65, b"x" * 16)],
        ["k", b"hunter2hunter2!!"],
    ],
)  # fmt: skip
def test_a_bad_key_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="signing_keys") as caught:
        app_options({"signing_keys": given}, {})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_secret_is_in_a_repr() -> None:
    here = StreamQ[None](signing_keys=[NEW])
    for shown in (repr(here), repr(here.options), repr(here.link), repr(here.broker)):
        assert "secret" not in shown
