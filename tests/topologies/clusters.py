"""Masters that share the slots, their replicas, and slots that move between them."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.topologies.access import HOST, Access
from tests.topologies.node import Node, table, until
from tests.topologies.topology import Topology, synced


@dataclass(frozen=True)
class Member:
    """A line of CLUSTER NODES."""

    name: str
    port: int
    flags: frozenset[str]
    master: str
    epoch: int
    linked: bool
    slots: tuple[range, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        name, address, flags, master, _, _, epoch, link, *slots = line.split()
        port = int(address.partition("@")[0].rpartition(":")[2])
        owned = tuple(_range(text) for text in slots if not text.startswith("["))  # [93-<-id]: on its way
        return cls(name, port, frozenset(flags.split(",")), master, int(epoch), link == "connected", owned)

    def owns(self, slot: int) -> bool:
        return "master" in self.flags and any(slot in each for each in self.slots)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def members(node: Node) -> list[Member]:
    """All nodes, as this one sees them."""
    return [Member.parse(line) for line in node.call("CLUSTER", "NODES").splitlines()]


def myself(node: Node) -> Member:
    return next(each for each in members(node) if "myself" in each.flags)


def slot_of(key: str) -> int:
    """The slot of a key, or of the tag of keys."""
    return key_slot(key.encode())


class ClusterSet(Topology):
    """with ClusterSet("embedded", replicas=1) as cluster:
    cluster.migrate(slot_of("{mail}"), cluster.other_than(cluster.owner("{mail}")))
    """

    def __init__(
        self,
        kind: str,
        *,
        masters: int = 3,
        replicas: int = 0,
        full_coverage: bool = True,
        node_timeout_ms: int = 1000,
        config: Mapping[str, str] | None = None,
        access: Access | None = None,
    ) -> None:
        super().__init__(kind, access)
        given = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(node_timeout_ms),
            "cluster-require-full-coverage": "yes" if full_coverage else "no",
            "cluster-allow-replica-migration": "no",
            **(config or {}),
        }
        self._first = [self._node(given) for _ in range(masters)]
        self._following = {self._node(given): master for master in self._first for _ in range(replicas)}

    def url_of(self, user: str = "", password: str | None = None) -> str:
        password = self.access.password if password is None else password
        return self.access.url([each.port for each in self._first[:2]], kind="+cluster", user=user, password=password)

    def _form(self) -> None:
        bounds = [REDIS_CLUSTER_HASH_SLOTS * index // len(self._first) for index in range(len(self._first) + 1)]
        for epoch, (master, (start, end)) in enumerate(zip(self._first, pairwise(bounds), strict=True), 1):
            master.call("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            master.call("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
        for index, node in enumerate(self.nodes):
            for other in self.nodes[:index]:
                node.call("CLUSTER", "MEET", HOST, other.port, other.bus)
        until(lambda: all(self._knows_all(node) for node in self.nodes), 10, self.missing)
        for replica, master in self._following.items():
            replica.call("CLUSTER", "REPLICATE", self.name(master))

    def _mend(self) -> None:
        """Nothing: a master that comes back finds its successor by itself."""

    def _knows_all(self, node: Node) -> bool:
        seen = members(node)
        return len(seen) == len(self.nodes) and all(
            each.linked and not each.flags & {"handshake", "fail", "fail?", "noaddr"} for each in seen
        )

    def _missing(self) -> str:
        for node in self.nodes:
            if not self._knows_all(node):
                return f"links at {node}: {members(node)}"
            if "cluster_state:ok" not in node.call("CLUSTER", "INFO"):
                return f"slots at {node}"
        following = [each.master for each in map(myself, self.nodes) if "slave" in each.flags]
        for node in self.nodes:
            if len([each for each in members(node) if "slave" in each.flags]) != len(following):
                return f"roles at {node}: {members(node)}"
            own = myself(node)
            if "master" in own.flags and not synced(node, following.count(own.name)):
                return f"a replica of {node} in sync"
        return "" if len(following) == len(self._following) else f"replicas: {following}"

    def name(self, node: Node) -> str:
        """The identity of 40 digits that the cluster knows it by."""
        return str(node.call("CLUSTER", "MYID"))

    def owner(self, key: str | int) -> Node:
        """Who serves this key, tag or slot: of the running nodes that say they do the one with the latest epoch."""
        slot = key if isinstance(key, int) else slot_of(key)
        claims = [(own.epoch, own.port) for node in self.nodes if node.running and (own := myself(node)).owns(slot)]
        if not claims:
            raise LookupError(f"nobody serves slot {slot}")
        return self.at(max(claims)[1])

    def masters(self) -> list[Node]:
        """The running nodes that own slots."""
        return [node for node in self.nodes if node.running and (own := myself(node)).slots and "master" in own.flags]

    def other_than(self, node: Node) -> Node:
        """Another master."""
        return next(each for each in self.masters() if each is not node)

    def replica_of(self, master: Node) -> Node:
        """A running replica of this master, which may be gone itself."""
        return next(each for each in self.nodes if each.running and self._master_of(each) == master.port)

    def _master_of(self, node: Node) -> int:
        """The port of whom it follows, 0 if it is a master."""
        seen = {each.name: each for each in members(node)}
        own = next(each for each in seen.values() if "myself" in each.flags)
        return seen[own.master].port if own.master in seen else 0

    def agreed(self, slot: int) -> Node | None:
        """The owner of a slot, if all running nodes name the same running one, and find the cluster well."""
        running = [node for node in self.nodes if node.running]
        owners = {each.port for node in running for each in members(node) if each.owns(slot)}
        if len(owners) != 1 or not all("cluster_state:ok" in node.call("CLUSTER", "INFO") for node in running):
            return None
        return owner if (owner := self.at(owners.pop())).running else None

    def fail_over(self, master: Node, how: signal.Signals = signal.SIGKILL, *, within: float = 10.0) -> Node:
        """Kill or stop a master, and wait until all agree that a replica has its slots; that replica."""
        slot = myself(master).slots[0].start
        master.signal(how)
        until(lambda: self.agreed(slot) is not None, within, self.views)
        return self.owner(slot)

    def views(self) -> dict[int, list[Member]]:
        """What each running node sees."""
        return {node.port: members(node) for node in self.nodes if node.running}

    def migrate(self, slot: int, target: Node, *, pause: float = 0.0) -> None:
        """Move a slot key by key, as all versions can; stand still for `pause` seconds with half of its keys moved."""
        moving = Migration(self, slot, target)
        moving.begin()
        moving.move(*moving.keys(moving.left() // 2))
        time.sleep(pause)
        moving.finish()

    @property
    def moves_atomically(self) -> bool:
        """Whether its servers know `migrate_atomically`."""
        return bool(self.nodes[0].call("COMMAND", "INFO", "cluster|migrateslots")[0])

    def migrate_atomically(self, slot: int, target: Node, *, within: float = 10.0) -> None:
        """Move a slot at one moment, as Valkey 9 can."""
        source = self.owner(slot)
        source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.name(target))

        def done() -> bool:
            latest = table(source.call("CLUSTER", "GETSLOTMIGRATIONS")[0])
            if latest["state"] in {"failed", "canceled"}:
                raise RuntimeError(f"the migration ended: {latest}")
            return latest["state"] == "success"

        until(done, within, lambda: source.call("CLUSTER", "GETSLOTMIGRATIONS"))
        until(lambda: self.agreed(slot) is target, within, self.views)


class Migration:
    """A slot on its way, step by step: `begin`, `move` some keys, `finish`."""

    def __init__(self, cluster: ClusterSet, slot: int, target: Node) -> None:
        self.cluster, self.slot, self.target = cluster, slot, target
        self.source = cluster.owner(slot)

    def begin(self) -> None:
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.cluster.name(self.source))
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.cluster.name(self.target))

    def left(self) -> int:
        return int(self.source.call("CLUSTER", "COUNTKEYSINSLOT", self.slot))

    def keys(self, number: int) -> list[str]:
        return list(self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, number))

    def move(self, *keys: str) -> None:
        password = self.cluster.access.password
        if not keys:
            return
        self.source.call(
            "MIGRATE", HOST, self.target.port, "", 0, 5000, *(["AUTH", password] if password else []), "KEYS", *keys
        )

    def finish(self) -> None:
        """Move the rest, then let the target own the slot, the source know, and the others."""
        while keys := self.keys(100):
            self.move(*keys)
        others = [each for each in self.cluster.masters() if each not in (self.target, self.source)]
        for node in (self.target, self.source, *others):
            node.call("CLUSTER", "SETSLOT", self.slot, "NODE", self.cluster.name(self.target))
