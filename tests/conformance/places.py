"""Where the conformance suite runs: every way in which a server is reached, with the rights of a worker at most."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from streamq.broker.acl import rules
from streamq.broker.address import Address
from streamq.broker.embedded import EmbeddedServer
from tests.conftest import PROGRAMS
from tests.topologies import Access, ClusterSet, SentinelSet, certificates, speaks_tls


@dataclass(frozen=True)
class Place:
    """Servers that run."""

    url_of: Callable[[str, str], str]  # for a user with its password; for two empty ones, whoever may do all
    masters: Sequence[redis.Redis]  # with all rights; replies are text
    home: Callable[[str], redis.Redis]  # of the one that has this key; replies are raw
    grant: Callable[..., object] | None = None  # sends ACL commands to all servers, where tests have a limited user

    def url(self, namespace: str, *names: str) -> str:
        """For the tests of one namespace, which use these queues: as a user that may do what a worker does."""
        if self.grant is None:
            return self.url_of("", "")
        password, cluster = secrets.token_hex(8), "+cluster" in self.url_of("", "")
        given = rules("worker", namespace, names, cluster=cluster)
        self.grant("ACL", "SETUSER", namespace, *given, f">{password}")
        return self.url_of(namespace, password)


@contextmanager
def alone(kind: str, *, acl: bool = False) -> Iterator[Place]:
    with (
        EmbeddedServer.start(binary=PROGRAMS[kind]) as server,
        redis.Redis.from_url(server.url) as client,
        redis.Redis.from_url(server.url, decode_responses=True) as reader,
    ):
        path = Address.parse(server.url).path

        def url_of(user: str, password: str) -> str:
            return f"unix://{user}:{password}@{path}" if user else server.url

        yield Place(url_of, [reader], lambda _: client, client.execute_command if acl else None)


@contextmanager
def watched(kind: str, access: Access) -> Iterator[Place]:
    with (
        SentinelSet(kind, down_after_ms=5000, access=access) as servers,
        servers.master().client() as client,
        servers.master().client(decode_responses=True) as reader,
    ):
        yield Place(_urls(servers), [reader], lambda _: client, servers.broadcast if access.tls else None)


@contextmanager
def sharded(kind: str, access: Access) -> Iterator[Place]:
    with ClusterSet(kind, node_timeout_ms=5000, access=access) as servers, ExitStack() as stack:
        clients = {node.port: stack.enter_context(node.client()) for node in servers.nodes}
        readers = [stack.enter_context(node.client(decode_responses=True)) for node in servers.nodes]
        grant = servers.broadcast if access.tls else None
        yield Place(_urls(servers), readers, lambda key: clients[servers.owner(key).port], grant)


def _urls(servers: SentinelSet | ClusterSet) -> Callable[[str, str], str]:
    return lambda user, password: servers.url_of(user, password) if user else servers.url


def places() -> dict[str, Callable[[Path], AbstractContextManager[Place]]]:
    """Name -> what starts it, for the kinds of server that are here. With TLS there are passwords and limited users."""
    found: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {}
    for kind in PROGRAMS:
        found[f"alone-{kind}"] = lambda _, kind=kind: alone(kind)
        found[f"acl-{kind}"] = lambda _, kind=kind: alone(kind, acl=True)
        for way, make in (("sentinel", watched), ("cluster", sharded)):
            found[f"{way}-{kind}"] = lambda _, kind=kind, make=make: make(kind, Access())
            if speaks_tls(kind):
                found[f"{way}-tls-{kind}"] = lambda folder, kind=kind, make=make: make(kind, _secured(folder))
    return found


def _secured(folder: Path) -> Access:
    return Access(password="s3cret", sentinel_password="w4tch", tls=certificates(folder))


PLACES: Final = places()
