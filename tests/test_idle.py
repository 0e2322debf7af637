"""What an idle worker costs its server: commands are counted, those inside scripts too."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from streamq import StreamQ
from streamq.broker.embedded import EmbeddedServer
from streamq.broker.inspector import Inspector
from tests.conftest import PROGRAMS


@pytest.fixture
def private() -> Iterator[str]:
    """A server of this test's own: INFO counts the commands of everybody."""
    with EmbeddedServer.start(binary=next(iter(PROGRAMS.values()))) as server:
        yield server.url


def counted(client: redis.Redis) -> Counter[str]:
    found = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()})


async def settled(client: redis.Redis) -> Counter[str]:
    """What was counted when the worker's start was over: there is a fifth of a second without a command."""
    before = Counter[str]()
    async with asyncio.timeout(10):
        while (now := counted(client)) - before != {"info": 1}:
            before = now
            await asyncio.sleep(0.2)
    return now


# Seconds, and the commands that these bring at most: reads of the listener every 5 s, looks of the promoter (2 commands
# each) and pings of the bell every 10 s; once a lease or so a look of the sweep (3) and a beat (4).
@pytest.mark.parametrize(("lease", "seconds", "allowed"), [("30s", 12, 9), ("1s", 5, 50)])
async def test_an_idle_worker_hardly_speaks(private: str, lease: str, seconds: int, allowed: int) -> None:
    here: StreamQ[Any] = StreamQ(private, lease=lease)
    with redis.Redis.from_url(private) as client:
        async with here, here.worker():
            before = await settled(client)
            await asyncio.sleep(seconds)  # the time that is measured
            sent = counted(client) - before
            assert len(await Inspector(here.broker).workers("default")) == 1
    del sent["info"]
    assert 1 <= sent["xreadgroup"] <= seconds / 5 + 1
    assert sent["zrange"] <= seconds / 10 + 1
    assert sent.total() <= allowed, sent


# A look every 5 s (2 commands); those of the promoter (2) and pings of the bell every 10 s; a sweep (3) and a beat (4).
async def test_a_worker_of_a_paused_queue_hardly_speaks(private: str) -> None:
    here: StreamQ[Any] = StreamQ(private, lease="30s")
    with redis.Redis.from_url(private) as client:
        async with here, here.worker() as worker:
            await here.queue().pause()
            while worker.crew is None or not worker.crew.lanes["default"].paused or worker.crew.slots.listening:
                await asyncio.sleep(0.01)
            before = await settled(client)
            await asyncio.sleep(7)  # the time that is measured
            sent = counted(client) - before
    del sent["info"]
    assert sent["xreadgroup"] == 0  # nobody blocks
    assert 1 <= sent["exists"] <= 2  # but looks
    assert sent.total() <= 12, sent
