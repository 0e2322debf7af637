"""Whether a server and a set-up are sound for jobs: each check is a function of facts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from streamq.broker.facts import Facts
from streamq.core.shown import counted, size

SKEW: Final = 1.0  # seconds
TIGHT: Final = 0.8  # of maxmemory
SLOW_MS: Final = 5.0
OLD: Final = 300.0  # seconds that the oldest job waits
A_JOB: Final = 250  # bytes of a queued job with small arguments, with room to spare
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # worth knowing
    WARNING = "warning"  # jobs can be lost, late or refused
    UNSUITABLE = "unsuitable"  # jobs are not safe, or cannot run at all


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a sentence, and what to do about it."""

    check: str
    severity: Severity
    says: str
    do: str = ""


# ---- the checks -------------------------------------------------------------------------------------------

Findings = Iterator[Finding]


def server(facts: Facts) -> Findings:
    """Which server it is, and whether it takes writes."""
    name = "Valkey" if "valkey_version" in facts.server else "Redis"
    number = facts.server.get("valkey_version") or facts.server.get("redis_version", "of an unknown version")
    if facts.replication.get("role") == "slave":
        yield Finding(
            "server",
            Severity.UNSUITABLE,
            f"{facts.address} is a replica: it takes no writes",
            f"use the primary: {facts.replication.get('master_host', '?')}:{facts.replication.get('master_port', '?')}",
        )
        return
    yield Finding("server", Severity.OK, f"{name} {number} at {facts.address}")


def memory(facts: Facts) -> Findings:
    """Eviction, and the room that is left."""
    if not facts.memory:
        yield Finding("memory", Severity.NOTE, "this user may not ask for INFO: maxmemory and its policy are unknown")
        return
    used, most = (int(facts.memory.get(name, "0")) for name in ("used_memory", "maxmemory"))
    policy = facts.memory.get("maxmemory_policy", "noeviction")
    if not most:
        yield Finding("memory", Severity.OK, f"{size(used)} used, no maxmemory: the machine's memory is the limit")
        if policy != "noeviction":
            yield Finding(
                "memory",
                Severity.WARNING,
                f"maxmemory-policy is {policy}: once a maxmemory is set, jobs would be dropped",
                "CONFIG SET maxmemory-policy noeviction",
            )
        return
    room = f"room for about {max(0, most - used) // A_JOB:,} more small jobs"
    if used >= most:
        yield Finding(
            "memory",
            Severity.WARNING,
            f"{size(used)} of {size(most)} used: new jobs are refused (QueueFull), running ones end",
            "let the workers catch up, raise maxmemory, or see what else fills it: INFO memory",
        )
    elif used > TIGHT * most:
        yield Finding(
            "memory",
            Severity.WARNING,
            f"{size(used)} of {size(most)} used, {room}",
            "raise maxmemory, or add workers",
        )
    else:
        yield Finding("memory", Severity.OK, f"{size(used)} of {size(most)} used, {room}")


def persistence(facts: Facts) -> Findings:
    """What survives a crash of the server."""
    known = facts.persistence
    if not known:
        return
    if known.get("aof_enabled") == "1":
        lost = {"always": "nothing that was acknowledged", "everysec": "about two seconds"}.get(facts.fsync, "")
        said = f"AOF with appendfsync {facts.fsync or 'unknown'}" + (f": a crash loses {lost}" if lost else "")
        risky = facts.fsync == "no"
        yield Finding(
            "persistence",
            Severity.WARNING if risky else Severity.OK,
            said + (": a crash loses what the operating system had not written" if risky else ""),
            "CONFIG SET appendfsync everysec" if risky else "",
        )
    else:
        embedded = facts.address.scheme == "embedded"
        yield Finding(
            "persistence",
            Severity.NOTE if embedded else Severity.WARNING,
            "no AOF: a crash or restart of the server loses jobs that were acknowledged",
            "" if embedded else "CONFIG SET appendonly yes, and the same in its configuration file",
        )
    for field, what in (("aof_last_write_status", "AOF"), ("rdb_last_bgsave_status", "last snapshot")):
        if known.get(field, "ok") != "ok":
            yield Finding(
                "persistence", Severity.WARNING, f"the {what} could not be written", "look at its disk and log"
            )


def durability(facts: Facts) -> Findings:
    """Whether the server can give the durability that the application asks for."""
    kind, _, count = facts.options.durability.partition(":")
    replicas = int(facts.replication.get("connected_slaves", "0"))
    if kind == "replicas" and facts.replication and replicas < int(count):
        yield Finding(
            "durability",
            Severity.UNSUITABLE,
            f"durability={facts.options.durability!r}, and the server has {counted(replicas, 'replica')}: "
            "each enqueue would fail",
            f"add replicas, or set durability to memory or replicas:{max(1, replicas)}",
        )
    elif kind == "fsync" and (not facts.waitaof or facts.persistence.get("aof_enabled", "1") != "1"):
        why = "WAITAOF needs Redis 7.2" if not facts.waitaof else "appendonly is no"
        yield Finding(
            "durability",
            Severity.UNSUITABLE,
            f"durability='fsync', and {why}: each enqueue would fail",
            "CONFIG SET appendonly yes" if facts.waitaof else "upgrade the server, or set durability to memory",
        )
    else:
        shown = f", {counted(replicas, 'replica')}" if facts.replication else ""
        yield Finding("durability", Severity.OK, f"{facts.options.durability}{shown}")


def failover(facts: Facts) -> Findings:
    """Whether another server can take over, and what it would lack."""
    if not facts.replaceable or not facts.replication:
        return
    replicas = int(facts.replication.get("connected_slaves", "0"))
    if not replicas:
        yield Finding(
            "failover", Severity.WARNING, "no replica: nobody takes over when it fails", "add one, or start it again"
        )
    elif "min_slaves_good_slaves" not in facts.replication:  # shown only where they are asked for
        yield Finding(
            "failover",
            Severity.NOTE,
            "a failover loses what no replica has yet, and what an isolated master goes on accepting",
            "CONFIG SET min-replicas-to-write 1, CONFIG SET min-replicas-max-lag 10, and durability='replicas:1'",
        )
    else:
        yield Finding("failover", Severity.OK, f"{counted(replicas, 'replica')}, and writes stop without")


def access(facts: Facts) -> Findings:
    """Who may read and write the jobs."""
    reachable = facts.address.scheme not in ("unix", "embedded") and facts.address.host not in LOCAL
    if reachable and not facts.address.password:
        yield Finding(
            "access",
            Severity.WARNING,
            f"no password: whoever reaches {facts.address.host} can read and write jobs",
            "set an ACL user for streamq, and put its name and password into the URL",
        )
    elif facts.user:
        yield Finding("access", Severity.OK, f"user {facts.user}")
    if reachable and not facts.address.tls:
        yield Finding(
            "access", Severity.NOTE, "no TLS: arguments and results cross the network in clear", "use rediss://"
        )


def clock(facts: Facts) -> Findings:
    """Whether the clocks agree."""
    if abs(facts.skew) > SKEW:
        way = "ahead of" if facts.skew > 0 else "behind"
        yield Finding(
            "clock",
            Severity.WARNING,
            f"the server's clock is {abs(facts.skew):.1f} s {way} this machine's: an eta is due by the server's",
            "run NTP on both",
        )
    else:
        yield Finding("clock", Severity.OK, f"differs by {abs(facts.skew) * 1000:.0f} ms")


def network(facts: Facts) -> Findings:
    """How long a round trip takes."""
    median = statistics.median(facts.pings)
    slow = median > SLOW_MS
    yield Finding(
        "network",
        Severity.NOTE if slow else Severity.OK,
        f"a round trip takes {median:.2f} ms (median of {len(facts.pings)}), {max(facts.pings):.2f} ms at worst",
        "run workers near the server: a job alone costs about four round trips" if slow else "",
    )


def queues(facts: Facts) -> Findings:
    """Queues that nobody serves, that stand still, or that fail."""
    for queue in facts.queues:
        waiting = queue.queued + queue.running
        if waiting and not queue.workers:
            yield Finding(
                "queues",
                Severity.WARNING,
                f"{queue.name}: {counted(waiting, 'job')}, and no live worker",
                f"streamq worker MODULE:APP --queues {queue.name}",
            )
        elif queue.queued and queue.oldest > OLD:
            yield Finding(
                "queues",
                Severity.NOTE,
                f"{queue.name}: {counted(queue.queued, 'job')} queued, the oldest since {queue.oldest:,.0f} s",
                "add workers, or raise --concurrency: streamq top",
            )
        if queue.dead:
            yield Finding(
                "queues",
                Severity.NOTE,
                f"{queue.name}: {counted(queue.dead, 'dead letter')}",
                f"streamq dlq list --queue {queue.name}",
            )
    if not facts.queues:
        yield Finding("queues", Severity.NOTE, f"no queue was ever used in the namespace {facts.options.namespace!r}")
    else:
        total = sum(queue.queued + queue.running + queue.scheduled for queue in facts.queues)
        yield Finding(
            "queues", Severity.OK, f"{counted(len(facts.queues), 'queue')}, {counted(total, 'unfinished job')}"
        )


def orphans(facts: Facts) -> Findings:
    """Entries in the hands of workers that no longer live."""
    if held := sum(facts.orphans.values()):
        names = ", ".join(list(facts.orphans)[:3])
        yield Finding(
            "orphans",
            Severity.NOTE,
            f"{counted(held, 'job')} held by {counted(len(facts.orphans), 'dead worker')} ({names})",
            "a live worker takes them over once their leases ran out; if there is none, start one",
        )


def versions(facts: Facts) -> Findings:
    """Releases that run side by side."""
    seen = Counter(worker.libraries or f"streamq {worker.version}" for worker in facts.workers)
    if len(seen) > 1:
        shown = "; ".join(f"{count} with {text}" for text, count in seen.most_common(5))
        yield Finding(
            "versions", Severity.NOTE, f"workers run {len(seen)} sets of versions: {shown}", "deploy one of them"
        )
    yield Finding("versions", Severity.OK, f"{facts.libraries} here; {counted(len(facts.workers), 'live worker')}")


Check = Callable[[Facts], Findings]
OF_A_SERVER: Final[tuple[Check, ...]] = (server, memory, persistence, durability, failover, access, clock, network)
OF_THE_QUEUES: Final[tuple[Check, ...]] = (queues, orphans, versions)


def examine(servers: Sequence[Facts]) -> list[Finding]:
    """All findings, in the order of the checks."""
    found = [
        finding if len(servers) == 1 or where in finding.says else replace(finding, says=f"{where}: {finding.says}")
        for check in OF_A_SERVER
        for where, facts in ((str(facts.address), facts) for facts in servers)
        for finding in check(facts)
    ]
    return found + [finding for check in OF_THE_QUEUES for finding in check(servers[0])]
