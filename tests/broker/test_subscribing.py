"""A subscription that is given up while it is being made leaves no connection behind."""

from __future__ import annotations

import asyncio
import gc

import pytest

from streamq.broker.connect import Connections
from tests.conftest import PROGRAMS
from tests.topologies import Node

PASSES = 60  # of the loop, of which each is cut off once


@pytest.fixture(params=PROGRAMS)
def node(request: pytest.FixtureRequest) -> Node:
    with Node(request.param) as node:
        yield node


async def test_a_subscription_that_is_cancelled_while_it_connects_is_closed(node: Node) -> None:
    """In whichever await; what is left open, the collector would complain of."""
    connections = Connections(node.url)
    await connections.open()

    async def subscribe() -> None:
        async with connections.subscribed("a", "b") as made:
            await made.get_message(timeout=5)

    for passes in range(PASSES):
        task = asyncio.create_task(subscribe())
        for _ in range(passes):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # redis-py may lose the cancellation
        del task
        gc.collect()
    await connections.close()
    assert int(node.call("INFO", "clients")["connected_clients"]) == 1
