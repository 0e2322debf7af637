"""Every transition in any order: the real scripts on a real server against a model of them, see `machine`.

`pytest tests/broker/test_model.py -m slow` takes minutes instead of seconds.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from streamq.broker import scripts
from streamq.broker.embedded import EmbeddedServer
from tests.broker.byhand import variant
from tests.broker.machine import Machine
from tests.worker.waits import one_server

BUDGET = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    ("examples", "steps"), [(20, 40), pytest.param(250, 60, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_any_order_of_everything(server: EmbeddedServer, examples: int, steps: int) -> None:
    budget = settings(BUDGET, max_examples=examples, stateful_step_count=steps)
    with asyncio.Runner() as runner:
        run_state_machine_as_test(lambda: Machine(server.url, runner), settings=budget)


GUARDS = {
    "fence": ("turn", "  if seen ~= b[n + COUNT] then return 'f' end\n", ""),
    "late turns": ("turn", "elseif last and tonumber(last) > tonumber(request) then", "elseif false then"),
    "repeated turns": ("turn", "  if last == request then", "  if false then"),
    "repeated adds": ("push", "if before == request then", "if false then"),
    "repeated enqueues": ("enqueue", "if answer[1] == request then", "if false then"),
    "whose lease it is": ("renew", "if not found.err and found[1] and found[1][4] == count then", "if true then"),
    "pause": ("reclaim", "if redis.call('EXISTS', paused) == 1 then return { taken, cursors } end\n", ""),
    "keys": ("enqueue", "return first[2] == print and 'd' or 'm', first[1]", "return 'd', first[1]"),
}


@one_server
@pytest.mark.parametrize("guard", GUARDS)
def test_the_model_finds_a_missing_guard(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    name, old, new = GUARDS[guard]
    monkeypatch.setitem(scripts.SCRIPTS, name, variant(name, (old, new)))
    unshrunk = settings(BUDGET, max_examples=300, derandomize=True, phases=[Phase.generate])
    with asyncio.Runner() as runner, pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(lambda: Machine(server.url, runner), settings=unshrunk)
