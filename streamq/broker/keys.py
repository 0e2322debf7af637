"""Every key and channel name. All of one queue share a hash tag, so that each script stays in one cluster slot."""

from __future__ import annotations

from typing import Final

PERMANENT: Final = (
    "s:",
    "dead",
    "dead:body",
    "cron",
    "cron:paused",
    "ev",
    "paused",
    "workers",
    "workers:info",
    "queues",
)


class Keys:
    """The names of one queue.

    >>> Keys("shop", "default").jobs
    'sq:{shop/default}:jobs'
    """

    __slots__ = (
        "bell", "body", "cron", "cron_paused", "dead", "dead_body", "due", "ev", "jobs", "keys", "paused", "prefix",
        "records", "side", "streams", "worker_info", "workers",
    )  # fmt: skip

    def __init__(self, namespace: str, queue: str) -> None:
        prefix = self.prefix = f"sq:{{{namespace}/{queue}}}:"
        self.streams = prefix + "s:"  # + priority: stream with group `w`: runnable jobs, until settled
        self.records = prefix + "r:"  # + id: string: the finished record, for its result_ttl
        self.keys = prefix + "k:"  # + hash: hash: idempotency key -> job, 24 h after the job finished
        self.jobs = prefix + "jobs"  # hash: id -> where an unfinished job is
        self.side = prefix + "side"  # hash: <letter>:<id> -> notes on an unfinished job, see lib/finish.lua
        self.due = prefix + "due"  # zset: id by due ms: delayed and retrying jobs, until promoted
        self.body = prefix + "body"  # hash: id -> the delayed job
        self.dead = prefix + "dead"  # zset: id by ms: dead letters, kept until retried or discarded
        self.dead_body = prefix + "dead:body"  # hash: id -> the dead letter
        self.cron = prefix + "cron"  # hash: schedule -> last occurrence fired; permanent
        self.cron_paused = prefix + "cron:paused"  # hash: p:<schedule> -> ms since when, r:<schedule> -> ms resumed at
        self.ev = prefix + "ev"  # stream: what happened to whom, see `history`; trimmed to `events` transitions
        self.paused = prefix + "paused"  # hash: there while nobody may take jobs: since when, why; until resumed
        self.workers = prefix + "workers"  # zset: consumer by the ms it is believed alive until
        self.worker_info = prefix + "workers:info"  # hash: consumer -> what it says of itself
        self.bell = prefix + "bell"  # channel: wake-ups for workers

    def ring(self, client: str, place: int = 0) -> str:
        """Requests that were carried out, with their answers; 10 minutes.

        A `place` is one flight of a worker, or one of a producer's places for plain jobs; 0 is the worker's first
        flight, or all other requests of the producer.
        """
        return f"{self.prefix}ring:{client}/{place}" if place else f"{self.prefix}ring:{client}"

    def stream(self, priority: int) -> str:
        """The stream of one priority."""
        return f"{self.streams}{priority}"


def queues(namespace: str) -> str:
    """Hash: every queue of the namespace that was ever used."""
    return f"sq:{{{namespace}}}:queues"


def inbox(namespace: str, client: str) -> str:
    """Channel: the ends of the jobs that one client waits for."""
    return f"sq:{{{namespace}}}:inbox:{client}"
