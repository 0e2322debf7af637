"""Each guard that a promise stands on, and the proof: with the guard cut out of the script, the promise breaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from redis.exceptions import ResponseError

from streamq.broker import scripts
from streamq.broker.broker import Broker
from streamq.broker.connect import Line, Reply
from streamq.broker.scripts import ScriptCall
from streamq.errors import BrokerError
from tests.broker.byhand import LEASE, QUEUE, Server, Worker, buried, done, job, variant
from tests.broker.conftest import Brokers
from tests.conformance.test_leases import crash, held

Cut = Callable[..., None]
GUARDED = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Puts a variant of a script in the place of the real one."""

    def cut(name: str, *cuts: tuple[str, str]) -> None:
        monkeypatch.setitem(scripts.SCRIPTS, name, variant(name, *cuts))

    return cut


def lose_the_first_reply(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server carries the next script out, and its answer never arrives."""
    send, lost = broker.script, list[str]()

    async def script(call: ScriptCall, line: Line | None = None, timeout: float = 5.0) -> Reply:
        reply = await send(call, line, timeout)
        if not lost:
            lost.append(call.script.contract.name)
            raise ConnectionResetError("the reply was lost")
        return reply

    monkeypatch.setattr(broker, "script", script)


@GUARDED
async def test_the_completion_is_fenced(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut(
            "turn",
            ("  if seen ~= b[n + COUNT] then return 'f' end\n", ""),
            ("then return 'g' end", "then return 'o' end"),
        )
    await broker.add(QUEUE, [job("a")])
    zombie = await worker.one()
    look.expire(zombie)
    (current,) = await other.sweep()
    replies = [await other.settle(current, done()), await worker.settle(zombie, buried(zombie))]
    assert replies == (["ok", "gone"] if guarded else ["ok", "ok"])
    assert len(await broker.dead(QUEUE)) == (0 if guarded else 1)


@GUARDED
async def test_a_zombie_that_is_first_is_fenced_too(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("turn", ("  if seen ~= b[n + COUNT] then return 'f' end\n", ""))
    await broker.add(QUEUE, [job("a")])
    zombie = await worker.one()
    look.expire(zombie)
    (current,) = await other.sweep()
    replies = [await worker.settle(zombie, done()), await other.settle(current, done())]
    assert replies == (["fenced", "ok"] if guarded else ["ok", "gone"])


@GUARDED
async def test_the_fence_counts_deliveries(
    broker: Broker, worker: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("turn", ("if seen ~= b[n + COUNT] then", "if seen < 0 then"))
    await broker.add(QUEUE, [job("a")])
    zombie = await worker.one()
    look.expire(zombie)
    await worker.sweep()
    assert await worker.settle(zombie, done()) == ("fenced" if guarded else "ok")


@GUARDED
async def test_a_request_that_is_sent_again_adds_one_job(
    broker: Broker, look: Server, cut: Cut, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        cut("enqueue", ("if answer[1] == request then", "if false then"))
    lose_the_first_reply(broker, monkeypatch)
    placed = await broker.add(QUEUE, [job("a"), job("b", delay=60_000)])
    assert [each.status for each in placed] == ["new", "new"]
    assert look.lengths() == (1 if guarded else 2)


@GUARDED
async def test_an_answer_from_the_ring_is_a_write(
    broker: Broker, look: Server, cut: Cut, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    # WAIT covers what was written before it on its own connection: a read would cover nothing.
    if not guarded:
        cut("enqueue", ("    redis.call('PEXPIRE', ring, ring_ttl)\n    return", "    return"))
    await broker.add(QUEUE, [job(delay=60_000)])
    ring = look.keys.ring(broker.client_id)
    lose_the_first_reply(broker, monkeypatch)
    send = broker.script

    async def script(call: ScriptCall, line: Line | None = None, timeout: float = 5.0) -> Reply:
        look.client.pexpire(ring, 60_000)
        return await send(call, line, timeout)

    monkeypatch.setattr(broker, "script", script)
    await broker.add(QUEUE, [job(delay=60_000)])
    assert (look.client.pttl(ring) > 60_000) is guarded


@GUARDED
async def test_a_push_that_is_sent_again_adds_its_jobs_once(
    broker: Broker, look: Server, cut: Cut, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        cut("push", ("if before == request then", "if false then"))
    lose_the_first_reply(broker, monkeypatch)
    placed = await broker.add(QUEUE, [job("a"), job("b", priority=3)])
    assert [each.status for each in placed] == ["new", "new"]
    assert look.lengths() == (2 if guarded else 4)


@GUARDED
async def test_a_late_copy_of_a_push_adds_nothing(broker: Broker, look: Server, cut: Cut, guarded: bool) -> None:
    """Its place in the ring was given to a newer request meanwhile: that one must stay known, too."""
    if not guarded:
        cut("push", ("before and tonumber(before) > tonumber(request)", "false"))
    k = look.keys

    def push(request: int, name: str) -> ScriptCall:
        ring = k.ring(broker.client_id, 1)
        flat = [name, 0, b"body"]
        return scripts.push(
            streams=k.streams, jobs=k.jobs, ring=ring, now="", request=request, ring_ttl=60_000, jobs_flat=flat
        )

    await broker.script(push(9 * 1024, "new"))
    with pytest.raises(ResponseError, match="LATE") if guarded else nullcontext():  # nor does it look as if it had
        await broker.script(push(8 * 1024, "late"))
    await broker.script(push(9 * 1024, "new"))
    assert look.lengths() == (1 if guarded else 3)


@GUARDED
async def test_a_late_copy_of_an_enqueue_adds_nothing(broker: Broker, look: Server, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("enqueue", ("tonumber(answer[1]) > tonumber(request)", "false"))
    requests, broker._requests = broker._requests, itertools.count(9 * 1024)  # type: ignore[assignment]
    await broker.add(QUEUE, [job("new", delay=60_000)])
    broker._requests = itertools.count(8 * 1024)  # type: ignore[assignment]
    with pytest.raises(BrokerError, match="LATE") if guarded else nullcontext():
        await broker.add(QUEUE, [job("late", delay=60_000)])
    broker._requests = requests
    assert look.client.zcard(look.keys.due) == (1 if guarded else 2)


async def test_a_durable_enqueue_is_not_passed_by_others(broker: Broker, look: Server) -> None:
    """Its connection hangs, and comes back when a thousand plain ones were sent on theirs."""
    asked, broker._requests = broker._requests, itertools.count(1)  # type: ignore[assignment]
    durable = broker._enqueue(QUEUE, [job("durable")], f"{broker.client_id}d")
    for _ in range(1025):
        await broker.add(QUEUE, [job()])
    await broker.script(durable)
    assert look.lengths() == 1026
    broker._requests = asked


@GUARDED
@pytest.mark.parametrize("which", ["stream", "jobs"])
async def test_a_push_that_a_foreign_key_stops_leaves_nothing(
    broker: Broker, look: Server, cut: Cut, which: str, guarded: bool
) -> None:
    if not guarded:
        cut("push", ("redis.call('XDEL', each[1], each[2])", "local _ = each"))
    look.client.set(look.keys.stream(7) if which == "stream" else look.keys.jobs, "foreign")
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await broker.add(QUEUE, [job("first"), job("second", priority=7)])
    lengths = [look.client.xlen(look.keys.stream(priority)) for priority in (0, 7) if which == "jobs" or not priority]
    assert (sum(lengths) == 0) is guarded
    assert not list(look.client.scan_iter("*:ring:*"))  # asked again it would count as done


@GUARDED
async def test_a_turn_that_is_sent_again_is_answered(broker: Broker, worker: Worker, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("turn", ("  if last == request then", "  if false then"))
    await broker.add(QUEUE, [job("a")])
    pairs = [(await worker.one(), done())]
    await worker.turn(pairs)
    assert (await worker.turn(pairs, request=worker.request)).replies == (["dup"] if guarded else ["gone"])


@GUARDED
async def test_a_late_turn_takes_no_jobs(broker: Broker, worker: Worker, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("turn", ("last and tonumber(last) > tonumber(request)", "false"))
    await broker.add(QUEUE, [job("a"), job("b"), job("c")])
    a, b = await worker.take(2)
    await worker.turn([(a, done())], request=5)
    await worker.turn([(b, done())], request=6)
    late = await worker.turn([(a, done())], 1, request=5)
    assert len(late.deliveries) == (0 if guarded else 1)


@GUARDED
async def test_one_job_for_one_idempotency_key(brokers: Brokers, look: Server, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("enqueue", ("    if first[1] and not", "    if false and not"))
    crowd = [await brokers() for _ in range(5)]
    answers = await asyncio.gather(
        *(each.add(QUEUE, [job(key="k", fingerprint="f")]) for each in crowd for _ in range(10))
    )
    ids = {placed.job_id for (placed,) in answers}
    assert (len(ids), look.lengths()) == ((1, 1) if guarded else (50, 50))


@GUARDED
async def test_one_job_for_one_id_of_ones_own(brokers: Brokers, look: Server, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("enqueue", ("  if own and (", "  if false and ("))
    crowd = [await brokers() for _ in range(5)]
    await asyncio.gather(*(each.add(QUEUE, [job("mine", own_id=True)]) for each in crowd for _ in range(4)))
    assert look.lengths() == (1 if guarded else 20)


async def fire_all(broker: Broker, occurrences: int) -> int:
    return sum([await broker.fire(QUEUE, "every", 1000 + n, job()) for n in range(occurrences)])


@GUARDED
async def test_each_occurrence_fires_once(brokers: Brokers, look: Server, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("fire", ("if last >= occurrence then return 0 end\n", ""))
    crowd = [await brokers() for _ in range(5)]
    fired = sum(await asyncio.gather(*(fire_all(each, 20) for each in crowd)))
    assert (fired, look.lengths()) == ((20, 20) if guarded else (100, 100))


@GUARDED
async def test_an_occurrence_waits_for_the_servers_clock(broker: Broker, look: Server, cut: Cut, guarded: bool) -> None:
    if not guarded:
        cut("fire", ("if occurrence > clock(now) then return 0 end\n", ""))
    seconds, _ = look.client.time()
    assert await broker.fire(QUEUE, "every", (seconds + 60) * 1000, job()) is not guarded


@GUARDED
async def test_renewing_takes_nothing_back(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("renew", ("if not found.err and found[1] and found[1][4] == count then", "if true then"))
    await broker.add(QUEUE, [job("a")])
    zombie = await worker.one()
    look.expire(zombie)
    (current,) = await other.sweep()
    renewer = broker.renewer()
    lost = renewer.renew(QUEUE, "w1", held(zombie), b"", LEASE).lost
    renewer.close()
    assert lost == (["a"] if guarded else [])
    assert await other.settle(current, done()) == ("ok" if guarded else "fenced")


@GUARDED
async def test_a_suspect_starts_alone(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    if not guarded:
        cut("reclaim", ("  if suspect and suspects <= 0 then", "  if false then"))
    await broker.add(QUEUE, [job() for _ in range(3)])
    await worker.take()
    await crash(worker, look, times=2)
    assert len(await other.sweep(suspects=1)) == (1 if guarded else 3)


@GUARDED
async def test_a_worker_that_holds_something_is_not_forgotten(
    broker: Broker, worker: Worker, other: Worker, look: Server, cut: Cut, guarded: bool
) -> None:
    # XGROUP DELCONSUMER forgets what the consumer holds: nobody would ever take it over.
    if not guarded:
        cut("leave", ("  if held > 0 then return false end\n", ""))
    await broker.add(QUEUE, [job("a")])
    delivery = await worker.one()
    await broker.leave(QUEUE, "w1", hand_back=False)
    look.expire(delivery)
    assert [each.job_id for each in await other.sweep()] == (["a"] if guarded else [])
