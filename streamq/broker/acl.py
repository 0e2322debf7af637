"""Which commands, keys and channels a producer and a worker need: the table behind `streamq acl`.

Redis checks the commands inside a script against the user that calls it, so they stand here too; tests compare the
table with the scripts, and run a producer and a worker under these very rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from streamq.broker.keys import Keys, inbox, queues
from streamq.broker.scripts import SCRIPTS

Role = Literal["producer", "worker"]

# The scripts of `enqueue`, of a job's handle as far as it only looks, and of `streamq info`. A worker calls all.
PRODUCER_SCRIPTS: Final = ("push", "enqueue", "find", "watch", "sizes")
SCRIPTS_OF: Final[Mapping[Role, Sequence[str]]] = {"producer": PRODUCER_SCRIPTS, "worker": tuple(SCRIPTS)}

# What is sent outside scripts, with where it stands.
_BOTH: Final = {
    "select": "redis-py, for a database other than 0",
    "ping": "subscriptions, doctor",
    "time": "session: the server's clock",
    "evalsha": "session",
    "eval": "session: the server does not know the script yet",
    "subscribe": "results, bell",
    "wait": "producing: durability",
    "hexists": "session: the list of queues",
    "hset": "session: the list of queues",
    "hgetall": "producing: the list of queues",
    "hget": "producing: a dead letter",
    "hmget": "producing: dead letters, schedules; governing: pause; inspector: workers",
    "zrange": "producing: dead letters; inspector: workers",
    "mget": "archive, rates, listing: records",
    "xrange": "history",
    "xrevrange": "history, rates",
    "xpending": "facts",
}
_WORKER: Final = {
    "info": "suitability: whether the server may drop jobs, since when it is up",
    "command|info": "suitability: whether it has what is needed",
    "set": "broker: the record of a job that was acknowledged early",
    "del": "producing: records that were moved",
    "xreadgroup": "broker: the blocking read",
}
SENT: Final[Mapping[Role, Sequence[str]]] = {"producer": tuple(_BOTH), "worker": (*_BOTH, *_WORKER)}

# Inside scripts. The XDEL of `push`, its way back when a key of another type stands in its way, is left out: with it a
# producer could delete other people's jobs.
_OF_PRODUCER: Final = [
    *("del", "exists", "get", "hdel", "hexists", "hget", "hmget", "hset", "pexpire", "publish", "set", "time", "type"),
    *("xadd", "xlen", "xpending", "xrange", "zadd", "zcard", "zrange", "zrem", "zscore"),
]
_OF_WORKER: Final = [
    *("hincrby", "hsetnx", "xack", "xautoclaim", "xclaim", "xdel", "xgroup|create", "xgroup|delconsumer", "xread"),
    *("xreadgroup", "xrevrange", "zcount", "zrank"),
]
IN_SCRIPTS: Final[Mapping[Role, Sequence[str]]] = {
    "producer": _OF_PRODUCER,
    "worker": [*_OF_PRODUCER, *_OF_WORKER],
}


OF_A_CLUSTER: Final = ("cluster|slots",)  # nodes: where the keys are


def commands(role: Role) -> list[str]:
    """The commands of a role, in the spelling of ACL rules, sorted."""
    return sorted({*SENT[role], *IN_SCRIPTS[role]})


def rules(role: Role, namespace: str, names: Sequence[str], *, cluster: bool = False) -> list[str]:
    """The ACL rules of a user with this role on these queues, without its password; on each server of a `cluster`.

    >>> rules("producer", "shop", ["orders"])[:3]
    ['reset', 'on', '~sq:{shop/orders}:*']
    """
    keys = [Keys(_escaped(namespace), _escaped(name)) for name in names]
    return [
        "reset",
        "on",
        *(f"~{each.prefix}*" for each in keys),
        f"~{queues(_escaped(namespace))}",
        *(f"&{each.bell}" for each in keys),
        f"&{inbox(_escaped(namespace), '*')}",
        *(f"+{command}" for command in sorted([*commands(role), *(OF_A_CLUSTER if cluster else ())])),
    ]


def _escaped(name: str) -> str:
    """Names may have what means something in a pattern."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", name)
