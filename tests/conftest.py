"""Real servers for every test that asks for one, a namespace of its own, and a look at what it left there."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from streamq import StreamQ
from streamq.broker.embedded import EmbeddedServer, find_server
from streamq.broker.keys import PERMANENT
from streamq.client.router import shared

UNTIL_SETTLED = ("jobs", "side", "due", "body", "k:")

MakeApp = Callable[..., StreamQ[Any]]


def programs() -> dict[str, Path]:
    """Name -> server: the embedded one and Debian's, or the one that STREAMQ_TEST_SERVER names."""
    found = {"embedded": find_server()}
    if debian := shutil.which("redis-server"):
        found["redis"] = Path(debian)
    chosen = os.environ.get("STREAMQ_TEST_SERVER")
    return {chosen: found[chosen]} if chosen else found


PROGRAMS = programs()


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    """Shared tasks, the root logger and STREAMQ_* belong to the process: the next test must not find what one left."""
    root = logging.getLogger()
    handlers, level, environ = list(root.handlers), root.level, dict(os.environ)
    yield
    for name in {*os.environ, *environ}:
        if name.startswith("STREAMQ_") and os.environ.get(name) != environ.get(name):
            os.environ.pop(name, None)
            os.environ.update({name: environ[name]} if name in environ else {})
    shared.tasks.clear()
    shared.timetable.clear()
    root.handlers[:] = [each for each in root.handlers if each in handlers or "pytest" in type(each).__module__]
    root.setLevel(level)


@pytest.fixture(scope="session", params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """One running server a process and kind. For tests that stop or flush it, start another one."""
    with EmbeddedServer.start(binary=PROGRAMS[request.param]) as server:
        yield server


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def no_key_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once a test's jobs are finished, every key has a TTL or belongs to the permanent ones."""
    if "namespace" not in request.fixturenames or "server" not in request.fixturenames:
        yield
        return
    url = request.getfixturevalue("server").url
    namespace = request.getfixturevalue("namespace")
    yield
    with redis.Redis.from_url(url, decode_responses=True) as client:
        try:
            left = leaked(client, namespace)
        finally:
            for key in keys_of(client, namespace):
                client.delete(key)
    assert left == [], "keys without a TTL, though no job of their queue is unfinished"


def keys_of(client: redis.Redis, namespace: str) -> list[str]:
    return sorted(cast(Iterator[str], client.scan_iter(f"sq:{{{namespace}[/}}]*", count=1000)))


def leaked(client: redis.Redis, namespace: str) -> list[str]:
    keys = keys_of(client, namespace)
    unfinished = {key.rpartition("}:")[0] for key in keys if key.endswith("}:jobs")}
    return [key for key in keys if client.ttl(key) == -1 and not may_stay(key, unfinished)]


def may_stay(key: str, unfinished: set[str]) -> bool:
    queue, _, name = key.rpartition("}:")
    waits = queue in unfinished and name.startswith(UNTIL_SETTLED)
    return waits or any(name == each or (each.endswith(":") and name.startswith(each)) for each in PERMANENT)


@pytest.fixture
async def app(url: str, namespace: str) -> AsyncIterator[MakeApp]:
    """Makes applications on this test's server and namespace: `app(lease="1s")`; they are closed afterwards."""
    made: list[StreamQ[Any]] = []

    def make(**settings: Any) -> StreamQ[Any]:
        made.append(StreamQ(url, **{"namespace": namespace, **settings}))
        return made[-1]

    yield make
    for each in made:
        await each.close()
