"""An open broker on each kind of server, workers by hand, and a client that looks behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from streamq.broker.broker import Broker
from streamq.core.options import AppOptions
from tests.broker.byhand import Server, Worker

Brokers = Callable[..., Awaitable[Broker]]


@pytest.fixture
async def brokers(url: str, namespace: str) -> AsyncIterator[Brokers]:
    """Opens brokers on this test's server and namespace; they are closed afterwards."""
    opened: list[Broker] = []

    async def make(where: str = url, **options: Any) -> Broker:
        broker = Broker(where, AppOptions(**{"namespace": namespace, "timeout": 5.0, **options}))
        opened.append(broker)
        await broker.open()
        return broker

    yield make
    for broker in opened:
        await broker.close()


@pytest.fixture
async def broker(brokers: Brokers) -> Broker:
    return await brokers()


@pytest.fixture
def raw(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as client:
        yield client


@pytest.fixture
def look(raw: redis.Redis, broker: Broker) -> Server:
    return Server(raw, broker)


@pytest.fixture
def worker(broker: Broker) -> Worker:
    return Worker(broker, "w1")


@pytest.fixture
def other(broker: Broker) -> Worker:
    return Worker(broker, "w2")
