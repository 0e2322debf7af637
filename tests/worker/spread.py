"""Queues of which each is on another master of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

from streamq.broker.keys import Keys
from tests.conftest import keys_of, leaked
from tests.topologies import ClusterSet


def spread(cluster: ClusterSet, namespace: str) -> list[str]:
    """As many names as there are masters."""
    found: dict[int, str] = {}
    masters = len(cluster.masters())
    for number in range(1000):
        name = f"queue{number}"
        found.setdefault(cluster.owner(Keys(namespace, name).jobs).port, name)
        if len(found) == masters:
            break
    return list(found.values())


def left_over(cluster: ClusterSet, namespace: str) -> Iterator[str]:
    """Keys without a TTL that no unfinished job explains; all of the namespace are deleted."""
    for node in cluster.masters():
        with node.client(decode_responses=True) as client:
            yield from leaked(client, namespace)
            for key in keys_of(client, namespace):
                client.delete(key)
