"""Whether jobs are safe on a server, found by asking it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from redis.exceptions import ClusterDownError, ResponseError

from streamq.broker.exchange import Reply
from streamq.broker.line import Line
from streamq.errors import BrokerError, UnsuitableServer

# GETEX and XAUTOCLAIM came with 6.2, EXPIRETIME with 7.0. The version strings of forks say less.
NEEDED: Final = ("xautoclaim", "xclaim", "xpending", "xreadgroup", "getex", "expiretime")


@dataclass(frozen=True)
class ServerFacts:
    """What a server said about itself; empty strings where its ACL forbids the question.

    `time_ms` is the server's clock in milliseconds since 1970, read between `sent` and `received`, which are
    `time.monotonic()` of this process in seconds.
    """

    run_id: str
    version: str
    waitaof: bool
    time_ms: int
    sent: float
    received: float
    uptime: float  # seconds
    sharded: bool = False  # whether it is one of several in a cluster, and has a part of the keys only


async def suitable(line: Line) -> ServerFacts:
    """What the server is, if jobs are safe on it.

    Raises `UnsuitableServer` if it lacks a command or may evict keys, `redis.exceptions.ClusterDownError` if the
    cluster that it belongs to does not work. A question that the ACL forbids is not held against it.
    """
    commands = await _commands(line)
    facts = await info_section(line, "server")
    mode = facts.get("redis_mode", facts.get("server_mode"))
    if mode == "sentinel":
        raise UnsuitableServer(
            f"{line.where} is a Sentinel, which keeps no jobs. Write the URL as redis+sentinel://HOST:PORT/NAME",
            what="this is a Sentinel, which keeps no jobs",
            where=line.where,
            cause="the URL is for a single server",
            fix="--url redis+sentinel://HOST:PORT/NAME    NAME is that of the master, as in sentinel.conf",
        )
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    if commands is not None and (missing := [name.upper() for name in NEEDED if name not in commands]):
        raise UnsuitableServer(
            f"the server at {line.where} (version {version or 'unknown'}) lacks {', '.join(missing)}. "
            "streamq needs Redis 7.0 or newer, or Valkey 7.2 or newer: upgrade it, or use embedded://",
            what=f"the server lacks {', '.join(missing)}",
            where=f"{line.where}, version {version or 'unknown'}",
            cause="streamq needs Redis 7.0 or newer, or Valkey 7.2 or newer",
            fix="redis-server --version    and upgrade it; streamq demo brings its own server",
        )
    memory = await info_section(line, "memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory", "0") != "0":
        raise UnsuitableServer(
            f"the server at {line.where} has maxmemory-policy {policy}: it would drop jobs when "
            "its memory is full. Type: redis-cli CONFIG SET maxmemory-policy noeviction",
            what=f"the server would drop jobs when its memory is full: maxmemory-policy is {policy}",
            where=line.where,
            cause="it is set up as a cache",
            fix="redis-cli CONFIG SET maxmemory-policy noeviction    and the same in its configuration file",
        )
    cluster = await _told(line, "CLUSTER", "INFO") if mode == "cluster" else {}
    if cluster.get("cluster_state") == "fail":
        raise ClusterDownError("The cluster is down")
    up = float(facts.get("uptime_in_seconds", "inf"))  # not told: believe that it was up
    sent = time.monotonic()
    seconds, micros = _pair(await line.call("TIME"))
    received = time.monotonic()
    now = seconds * 1000 + micros // 1000
    sharded, waitaof = int(cluster.get("cluster_size", "0")) > 1, "waitaof" in (commands or ())
    return ServerFacts(facts.get("run_id", ""), version, waitaof, now, sent, received, up, sharded)


async def _commands(line: Line) -> set[str] | None:
    try:
        reply = await line.call("COMMAND", "INFO", *NEEDED, "waitaof")
    except ResponseError:  # forbidden, or renamed away
        return None
    found = reply if isinstance(reply, list) else []
    names = [entry[0] for entry in found if isinstance(entry, list) and entry]
    return {name.decode().lower() if isinstance(name, bytes) else str(name) for name in names}


async def info_section(line: Line, section: str) -> dict[str, str]:
    """One section of INFO; empty if this user may not ask."""
    return await _told(line, "INFO", section)


async def _told(line: Line, *words: str) -> dict[str, str]:
    try:
        reply = await line.call(*words)
    except ResponseError:  # forbidden, or renamed away
        return {}
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    pairs = (row.split(":", 1) for row in text.splitlines() if ":" in row)
    return {name: value.strip() for name, value in pairs}


def _pair(reply: Reply) -> tuple[int, int]:
    match reply:
        case [bytes() as first, bytes() as second]:
            return int(first), int(second)
        case _:
            raise BrokerError(f"TIME was answered with {reply!r}, not with two numbers: is this a Redis server?")
