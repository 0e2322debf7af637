"""The same tests with a guard cut out of a script: each must go red, or the checker sees nothing.

More guards, one by one and by hand: tests/broker/test_guards.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from streamq import StreamQ
from streamq.broker import scripts
from streamq.broker.exchange import Answer, Exchange
from tests.broker.byhand import variant
from tests.faults import test_cancellation, test_clocks, test_hogs, test_network, test_processes
from tests.faults.arena import Arena
from tests.faults.buggify import Moment
from tests.faults.proxy import KILL
from tests.faults.tasks import skewed
from tests.faults.test_hogs import hogs

FENCE = (
    ("  if seen ~= b[n + COUNT] then return 'f' end\n", ""),
    ("then return 'g' end", "then return 'o' end"),
)
ISOLATION = ("  if suspect and suspects <= 0 then", "  if false then")
SERVER_TIME = ("if occurrence > clock(now) then return 0 end\n", "")

Cut = Callable[..., None]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    def cut(name: str, *cuts: tuple[str, str]) -> None:
        monkeypatch.setitem(scripts.SCRIPTS, name, variant(name, *cuts))

    return cut


def unisolated(url: str, namespace: str, folder: Path, **settings: Any) -> StreamQ[Any]:
    scripts.SCRIPTS["reclaim"] = variant("reclaim", ISOLATION)
    return hogs(url, namespace, folder, **settings)


def untimed(url: str, namespace: str, folder: Path, **settings: Any) -> StreamQ[Any]:
    scripts.SCRIPTS["fire"] = variant("fire", SERVER_TIME)
    return skewed(url, namespace, folder, **settings)


@pytest.mark.parametrize(("again", "broken"), [(0.1, "twice"), (2.0, "stale")])
async def test_without_the_fence_a_zombie_ends_jobs(arena: Arena, cut: Cut, again: float, broken: str) -> None:
    cut("turn", *FENCE)
    with pytest.raises(AssertionError, match=broken):
        await test_processes.test_f02_a_zombie_that_comes_to_its_end_records_nothing(arena, 2.0, again)


@pytest.mark.parametrize(
    ("name", "guard"),
    [
        ("push", ("if before == request then", "if false then")),
        ("enqueue", ("if answer[1] == request then", "if false then")),
    ],
    ids=["push", "enqueue"],
)
async def test_without_the_ring_a_call_makes_several_jobs(arena: Arena, cut: Cut, name: str, guard: Any) -> None:
    cut(name, guard)
    with pytest.raises(AssertionError, match=r"twice|twins|overstarted"):
        await test_network.test_f18_the_reply_to_an_enqueue_is_lost(arena, KILL)


async def test_without_the_ring_a_worker_does_not_know_what_it_settled(
    arena: Arena, cut: Cut, caplog: pytest.LogCaptureFixture
) -> None:
    cut("turn", ("  if last == request then", "  if false then"))
    with pytest.raises((AssertionError, TimeoutError)):
        await test_network.test_f20_the_reply_to_a_finish_is_lost(arena, caplog)
    assert "nothing is recorded" in caplog.text


async def test_without_its_place_in_the_row_a_caller_s_reply_goes_to_the_next_one(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Exchange.send

    def send_and_go(exchange: Exchange, command: bytes) -> Answer:
        """Who is cancelled leaves the row, as if its reply would never come."""
        answer, row = send(exchange, command), exchange._open
        answer.add_done_callback(lambda _: row.remove(answer) if answer.cancelled() and answer in row else None)
        return answer

    monkeypatch.setattr(Exchange, "send", send_and_go)
    with pytest.raises((AssertionError, RedisError)):  # an echo of something else, or the refusal of a script
        await test_cancellation.each_await(arena, "info", "ask", Moment.SENT, cold=False)


async def test_without_the_server_s_time_a_schedule_is_early(arena: Arena) -> None:
    await test_clocks.ahead_of_all_others(arena, build=untimed)
    with pytest.raises(AssertionError):
        test_clocks.assert_all_fired_once_and_none_early(arena)


async def test_without_the_isolation_poison_takes_its_neighbours_along(arena: Arena) -> None:
    async with arena.crew(settings={"max_crashes": 3}, build=unisolated) as crew:
        await test_hogs.poisoned(arena, crew)
    verdict = await arena.verdict()
    assert verdict.lost == []
    assert verdict.done < 60
