"""The broker of each test, at each place. `CONTRIBUTING.md` says how to run it at every place there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from streamq.broker.keys import Keys
from tests.broker.byhand import QUEUE
from tests.broker.conftest import Brokers, broker, brokers, look, other, worker
from tests.conformance.places import PLACES, Place
from tests.conftest import keys_of, leaked

__all__ = ["Brokers", "broker", "brokers", "look", "other", "worker"]

# Each kind of place and of server once; the rest is `slow`.
QUICK = (
    "alone-embedded",
    "alone-redis",
    "sentinel-embedded",
    "sentinel-tls-redis",
    "cluster-embedded",
    "cluster-tls-redis",
)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """The places that were asked for; they run until the end, for each takes seconds to start."""
    started: dict[str, Place] = {}
    with ExitStack() as stack:

        def place(name: str) -> Place:
            if name not in started:
                started[name] = stack.enter_context(PLACES[name](tmp_path_factory.mktemp("place")))
            return started[name]

        yield place


def marks(name: str) -> list[pytest.MarkDecorator]:
    one_server = name.startswith(("alone", "acl"))
    return [*([] if one_server else [pytest.mark.sets]), *([] if name in QUICK else [pytest.mark.slow])]


@pytest.fixture(params=[pytest.param(each, marks=marks(each)) for each in PLACES])
def place(request: pytest.FixtureRequest, running: Callable[[str], Place]) -> Place:
    return running(request.param)


@pytest.fixture
def url(place: Place, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    # Each TLS connection reads the system's certificates too, for 30 ms. They are none of these servers'.
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    return place.url(namespace, QUEUE)


@pytest.fixture
def raw(place: Place, namespace: str) -> redis.Redis:
    """With all rights, of the server that has the queue."""
    return place.home(Keys(namespace, QUEUE).jobs)


@pytest.fixture(autouse=True)
def no_key_is_left(place: Place, namespace: str) -> Iterator[None]:
    """As everywhere, but on all servers."""
    yield
    left: list[str] = []
    for node in place.masters:
        try:
            left += leaked(node, namespace)
        finally:
            for key in keys_of(node, namespace):
                node.delete(key)
    assert left == [], "keys without a TTL, though no job of their queue is unfinished"
