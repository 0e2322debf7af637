"""A master with replicas, and Sentinels that watch it."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping

from tests.topologies.access import HOST, Access
from tests.topologies.node import Node, table, until
from tests.topologies.topology import Topology, synced

NAME = "mymaster"


class SentinelSet(Topology):
    """with SentinelSet("embedded") as watched:
        old, new = watched.fail_over(within=10)

    With `config={"min-replicas-to-write": "1"}` take two replicas: after a failover one of them is the master.
    Sentinels look and reconnect once a second: with 1,000 ms they sometimes take a new master for dead, a second after
    they made it one, and fail over again.
    """

    def __init__(
        self,
        kind: str,
        *,
        sentinels: int = 3,
        replicas: int = 1,
        down_after_ms: int = 1500,
        failover_timeout_ms: int = 2000,
        config: Mapping[str, str] | None = None,
        access: Access | None = None,
    ) -> None:
        super().__init__(kind, access)
        given = dict(config or {})
        first = self._node(given)
        following = {**given, "replicaof": f"{HOST} {first.port}"}
        others = [self._node(following) for _ in range(replicas)]
        self.sentinels = [
            self._node(
                {
                    f"sentinel monitor {NAME} {HOST} {first.port} {sentinels // 2 + 1}": "",
                    f"sentinel down-after-milliseconds {NAME}": str(down_after_ms),
                    f"sentinel failover-timeout {NAME}": str(failover_timeout_ms),
                    **({f"sentinel auth-pass {NAME}": password} if (password := self.access.password) else {}),
                    **({"sentinel sentinel-pass": own} if (own := self.access.sentinel_password) else {}),
                },
                sentinel=True,
            )
            for _ in range(sentinels)
        ]
        self._introduce(others)

    def _introduce(self, replicas: list[Node]) -> None:
        """Write into their files what Sentinels otherwise learn from each other in two seconds."""
        names = {each.port: secrets.token_hex(20) for each in self.sentinels}
        for each in self.sentinels:
            lines = [f"sentinel myid {names[each.port]}"]
            lines += [f"sentinel known-replica {NAME} {HOST} {replica.port}" for replica in replicas]
            lines += [
                f"sentinel known-sentinel {NAME} {HOST} {port} {name}"
                for port, name in names.items()
                if port != each.port
            ]
            with (each.folder / "conf").open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))

    def url_of(self, user: str = "", password: str | None = None) -> str:
        own = {"sentinel_password": self.access.sentinel_password} if self.access.sentinel_password else {}
        return self.access.url(
            [each.port for each in self.sentinels],
            kind="+sentinel",
            path=f"/{NAME}/0",
            user=user,
            password=self.access.password if password is None else password,
            options=own,
        )

    def _form(self) -> None:
        """Nothing: their files say it all."""

    def _mend(self) -> None:
        """Sentinels take 10 to 20 s to make a replica of a master that came back; this does it at once."""
        master = self.master()
        for node in self.nodes:
            if node is not master and node.call("ROLE")[0] == "master":
                node.call("REPLICAOF", HOST, master.port)

    def _missing(self) -> str:
        replicas, others = len(self.nodes) - 1, len(self.sentinels) - 1
        masters = {view["port"] for view in self.views()}
        if len(masters) != 1:
            return f"agreement: {masters}"
        if not synced(self.at(int(masters.pop())), replicas):
            return "a replica in sync"
        for each in self.sentinels:
            seen = [table(row) for row in each.call("SENTINEL", "REPLICAS", NAME)]
            peers = [table(row) for row in each.call("SENTINEL", "SENTINELS", NAME)]
            if len(seen) != replicas or any(away(row) or row["info-refresh"] == "0" for row in seen):
                return f"replicas at {each}: {seen}"
            if len(peers) != others or any(map(away, peers)):
                return f"sentinels at {each}: {peers}"
        return ""

    def views(self) -> list[dict[str, str]]:
        """What each running Sentinel says of the master."""
        return [table(each.call("SENTINEL", "MASTER", NAME)) for each in self.sentinels if each.running]

    def master(self) -> Node:
        """The master, as the Sentinel says that has the latest configuration."""
        return self.at(int(max(self.views(), key=lambda view: int(view["config-epoch"]))["port"]))

    def replicas(self) -> list[Node]:
        master = self.master()
        return [node for node in self.nodes if node is not master]

    def wait_for_new_master(self, old: Node, within: float) -> Node:
        """Wait until all running Sentinels name another master than this; it."""

        def agreed() -> bool:
            ports = {int(view["port"]) for view in self.views()}
            return len(ports) == 1 and old.port not in ports and self.master().call("ROLE")[0] == "master"

        until(agreed, within, lambda: self.views())
        return self.master()

    def fail_over(self, how: signal.Signals = signal.SIGKILL, *, within: float = 10.0) -> tuple[Node, Node]:
        """Kill or stop the master; the old one, and the new one once all Sentinels agree."""
        old = self.master()
        old.signal(how)
        return old, self.wait_for_new_master(old, within)


def away(row: dict[str, str]) -> bool:
    return not {"s_down", "o_down", "disconnected"}.isdisjoint(row["flags"].split(","))
