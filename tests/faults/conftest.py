"""Servers, an arena and dice for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults import arena as arenas
from tests.faults import figures
from tests.faults.arena import Arena
from tests.faults.seeds import FOLDER, PASSED, dice, pytest_runtest_makereport
from tests.faults.servers import Server
from tests.faults.tasks import LEASE

__all__ = ["dice", "pytest_runtest_makereport"]


@pytest.fixture
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own; parametrize it indirectly for another kind or other settings."""
    with Server(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
async def arena(
    request: pytest.FixtureRequest, redis_server: Server, tmp_path: Path, dice: random.Random
) -> AsyncIterator[Arena]:
    request.node.stash[FOLDER] = tmp_path
    async with arenas.arena(redis_server.url, tmp_path, dice) as made:
        yield made
        if figures.FILE and made.figures and request.node.stash.get(PASSED, False):
            figures.write(request.node.originalname, made.figures, version(redis_server), LEASE)


def version(server: Server) -> str:
    """Name and version of a server, as the table of figures says it."""
    with server.client() as client:
        facts = client.info("server")
    valkey = facts.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {facts['redis_version']}"
