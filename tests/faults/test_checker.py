"""What the checker says beside the promises, and what it finds on a real server. More of it: test_harness.py."""

from __future__ import annotations

import pytest

from tests.broker.byhand import Worker, done
from tests.faults.arena import QUEUE, Arena
from tests.faults.checker import Evidence, judge
from tests.faults.ledger import ABORT, COMMIT, END, FAULT, START
from tests.faults.test_harness import book

BEGUN = (f"{START} a A 1 2", f"{START} a A 2 3", f"{END} a A 2 3")


@pytest.mark.parametrize("reason", [f"{FAULT} kill-2 - 0 1", f"{ABORT} a A 1 2"])
def test_each_start_but_the_first_is_explained_by_an_attempt_that_was_cut_off(reason: str) -> None:
    assert judge(Evidence(book(BEGUN[0], reason, *BEGUN[1:]))).unexplained() == []
    assert judge(Evidence(book(*BEGUN))).unexplained() == ["A"]
    assert judge(Evidence(book(*BEGUN, f"{END} a A 1 2"))).unexplained() == ["A"]
    assert judge(Evidence(book(BEGUN[0], f"{FAULT} kill-4 - 0 1", *BEGUN[1:]))).unexplained() == ["A"]


@pytest.mark.parametrize(("told", "unexplained"), [((), []), ((f"{COMMIT} - A 0 2",), ["A"])])
def test_an_end_that_a_kill_kept_from_being_recorded_explains_another_start(
    told: tuple[str, ...], unexplained: list[str]
) -> None:
    ended = (BEGUN[0], f"{END} a A 1 2", *told, f"{FAULT} kill-2 - 0 1")
    assert judge(Evidence(book(*ended, *BEGUN[1:]))).unexplained() == unexplained


def test_starts_beside_an_attempt_that_goes_on_are_counted() -> None:
    assert judge(Evidence(book(*BEGUN))).overlaps == {"A": 1}
    assert judge(Evidence(book(BEGUN[0], f"{ABORT} a A 1 2", *BEGUN[1:]))).overlaps == {}


async def test_a_consumer_that_did_not_say_goodbye_is_found_unless_it_was_killed(arena: Arena) -> None:
    app = arena.app(direct=True)
    async with app:
        await app.broker.prepare(QUEUE)
        await arena.enqueue(app, "work", "a")
        hand = Worker(app.broker, "host-4711-abc", QUEUE)
        await hand.settle(await hand.one(), done())
    assert (await arena.verdict()).left == ["consumer host-4711-abc"]
    arena.ledger.note(FAULT, "kill-4711")
    assert (await arena.verdict()).left == []


async def test_what_stays_for_ever_and_grows_is_found(arena: Arena) -> None:
    app = arena.app(direct=True)
    k = app.broker.keys(QUEUE)
    async with app:
        await app.broker.prepare(QUEUE)
    assert (await arena.verdict()).left == []
    arena.client.hset(k.worker_info, mapping={f"w{n}": "x" * 100 for n in range(1_000)})
    (found,) = (await arena.verdict()).left
    assert found.startswith(f"{k.worker_info}: ")
