"""One typed function a Lua script, with the names of its contract; and how the scripts are loaded.

EVALSHA, never FUNCTION: in a rolling deploy two releases run side by side, each with its own scripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, NamedTuple

Arg = bytes | str | int

_USE = re.compile(r"^-- @use (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Contract:
    """What the head of a script promises: its name, KEYS and ARGV; a name with a star is the rest."""

    name: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A script with its snippets put in, and the digest the server knows it by."""

    contract: Contract
    text: str
    sha: str


class ScriptCall(NamedTuple):
    """One call, ready to be sent."""

    script: Script
    keys: tuple[str, ...]
    argv: tuple[Arg, ...]

    def evalsha(self) -> tuple[Arg, ...]:
        """The command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.argv)

    def eval(self) -> tuple[Arg, ...]:
        """The command with the whole script, for a server that does not know it (any more).

        One command: between a SCRIPT LOAD and an EVALSHA the server may be told to forget it again.
        """
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.argv)


def _load() -> dict[str, Script]:
    folder = files("streamq.broker") / "lua"
    library = {each.name[:-4]: each.read_text() for each in (folder / "lib").iterdir() if each.name.endswith(".lua")}
    scripts: dict[str, Script] = {}
    for each in folder.iterdir():
        if each.name.endswith(".lua"):
            source = each.read_text()
            name = each.name[:-4]
            names = [line.split(":", 1)[1].split() for line in source.splitlines()[1:3]]
            text = _USE.sub(lambda use: library[use[1]].rstrip(), source)
            sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - it is how Redis names scripts
            scripts[name] = Script(Contract(name, tuple(names[0]), tuple(names[1])), text, sha)
    return scripts


SCRIPTS: Final = _load()
CONTRACTS: Final = {name: script.contract for name, script in SCRIPTS.items()}


def enqueue(
    *, streams: str, records: str, jobs: str, due: str, body: str, side: str, keys: str, ring: str,
    dead: str, dead_body: str, now: Arg, bell: str, request: int, ring_size: int, ring_ttl: int,
    batch: bytes, bodies: Sequence[bytes],
) -> ScriptCall:  # fmt: skip
    """Adds a batch of jobs, once however often it is sent."""
    return ScriptCall(
        SCRIPTS["enqueue"],
        (streams, records, jobs, due, body, side, keys, ring, dead, dead_body),
        (now, bell, request, ring_size, ring_ttl, batch, *bodies),
    )


def push(
    *, streams: str, jobs: str, ring: str, now: Arg, request: int, ring_ttl: int, jobs_flat: Sequence[Arg]
) -> ScriptCall:
    """Adds jobs that ask for nothing but a place in a stream; three values each: id, priority, body."""
    return ScriptCall(SCRIPTS["push"], (streams, jobs, ring), (now, request, ring_ttl, *jobs_flat))


def turn(
    *, streams: str, records: str, jobs: str, due: str, body: str, side: str, keys: str, dead: str,
    dead_body: str, ring: str, paused: str, ev: str, now: Arg, bell: str, consumer: str, request: int, want: int,
    lease: int, idempotency_ttl: int, ring_ttl: int, events: int, heard: str, batch: bytes, blobs: Sequence[bytes],
) -> ScriptCall:  # fmt: skip
    """Settles what one worker finished and hands out what it has room for."""
    return ScriptCall(
        SCRIPTS["turn"],
        (streams, records, jobs, due, body, side, keys, dead, dead_body, ring, paused, ev),
        (now, bell, consumer, request, want, lease, idempotency_ttl, ring_ttl, events, heard, batch, *blobs),
    )


def cancel(
    *, streams: str, records: str, jobs: str, due: str, body: str, side: str, keys: str, ev: str,
    now: Arg, bell: str, id: str, reason: str, record: bytes, ttl: int, idempotency_ttl: int, events: int,
) -> ScriptCall:  # fmt: skip
    """Cancels one job: a waiting one is gone, a running one is told."""
    return ScriptCall(
        SCRIPTS["cancel"],
        (streams, records, jobs, due, body, side, keys, ev),
        (now, bell, id, reason, record, ttl, idempotency_ttl, events),
    )


def find(*, streams: str, records: str, jobs: str, due: str, body: str, side: str, id: str) -> ScriptCall:
    """All that is known of one job."""
    return ScriptCall(SCRIPTS["find"], (streams, records, jobs, due, body, side), (id,))


def page(*, streams: str, side: str, held: int, priority: int, after: str, count: int) -> ScriptCall:
    """Some of the jobs in the streams: those that wait, or those that are held."""
    return ScriptCall(SCRIPTS["page"], (streams, side), (held, priority, after, count))


def delayed(
    *, jobs: str, due: str, body: str, side: str, last: Arg, score: Arg, count: int, letters: str
) -> ScriptCall:
    """Some of the jobs that wait for their time."""
    return ScriptCall(SCRIPTS["delayed"], (jobs, due, body, side), (last, score, count, letters))


def watch(*, records: str, jobs: str, side: str, inbox: str, ids: Sequence[str]) -> ScriptCall:
    """Registers one client's inbox for the ends of many jobs."""
    return ScriptCall(SCRIPTS["watch"], (records, jobs, side), (inbox, *ids))


def promote(*, streams: str, jobs: str, due: str, body: str, ev: str, now: Arg, limit: int, events: int) -> ScriptCall:
    """Moves delayed jobs whose time has come."""
    return ScriptCall(SCRIPTS["promote"], (streams, jobs, due, body, ev), (now, limit, events))


def hasten(*, due: str, ev: str, now: Arg, bell: str, id: str, events: int) -> ScriptCall:
    """Makes a delayed job due now."""
    return ScriptCall(SCRIPTS["hasten"], (due, ev), (now, bell, id, events))


def reclaim(
    *, streams: str, side: str, paused: str, ev: str, now: Arg, consumer: str, lease: int, want: int, suspects: int,
    quiet: int, everywhere: int, events: int, cursors: Sequence[Arg],
) -> ScriptCall:  # fmt: skip
    """Takes over entries whose lease has run out."""
    return ScriptCall(
        SCRIPTS["reclaim"],
        (streams, side, paused, ev),
        (now, consumer, lease, want, suspects, quiet, everywhere, events, *cursors),
    )


def renew(
    *, streams: str, side: str, workers: str, worker_info: str,
    now: Arg, consumer: str, alive_for: int, info: bytes, held: bytes,
) -> ScriptCall:  # fmt: skip
    """Renews the leases of what a worker really holds."""
    return ScriptCall(SCRIPTS["renew"], (streams, side, workers, worker_info), (now, consumer, alive_for, info, held))


def fire(
    *, streams: str, jobs: str, due: str, body: str, cron: str, cron_paused: str,
    now: Arg, bell: str, name: str, occurrence: int, id: str, priority: int, job: bytes,
) -> ScriptCall:  # fmt: skip
    """Enqueues one occurrence of a schedule, whoever offers it first."""
    return ScriptCall(
        SCRIPTS["fire"], (streams, jobs, due, body, cron, cron_paused), (now, bell, name, occurrence, id, priority, job)
    )


def baseline(*, cron: str, cron_paused: str, now: Arg, names: Sequence[str]) -> ScriptCall:
    """Where each schedule goes on; a new or a paused one begins now."""
    return ScriptCall(SCRIPTS["baseline"], (cron, cron_paused), (now, *names))


def pause_schedule(*, cron_paused: str, now: Arg, name: str) -> ScriptCall:
    """Holds a schedule back from now on."""
    return ScriptCall(SCRIPTS["pause_schedule"], (cron_paused,), (now, name))


def resume_schedule(*, cron_paused: str, now: Arg, name: str) -> ScriptCall:
    """Lets a schedule go on from now on."""
    return ScriptCall(SCRIPTS["resume_schedule"], (cron_paused,), (now, name))


def progress(*, jobs: str, side: str, id: str, progress: bytes) -> ScriptCall:
    """Notes how far an unfinished job is."""
    return ScriptCall(SCRIPTS["progress"], (jobs, side), (id, progress))


def revive(
    *, streams: str, records: str, jobs: str, due: str, body: str, dead: str, dead_body: str, ev: str,
    now: Arg, bell: str, events: int, batch: bytes, bodies: Sequence[bytes],
) -> ScriptCall:  # fmt: skip
    """Puts dead letters back onto their queue."""
    return ScriptCall(
        SCRIPTS["revive"],
        (streams, records, jobs, due, body, dead, dead_body, ev),
        (now, bell, events, batch, *bodies),
    )


def discard(*, dead: str, dead_body: str, ids: Sequence[str]) -> ScriptCall:
    """Forgets dead letters."""
    return ScriptCall(SCRIPTS["discard"], (dead, dead_body), tuple(ids))


def leave(
    *, streams: str, side: str, workers: str, worker_info: str, ring: str, ring2: str, ev: str,
    now: Arg, consumer: str, lease: int, bell: str, hand_back: int, events: int,
) -> ScriptCall:  # fmt: skip
    """A worker that runs nothing any more says goodbye."""
    keys = (streams, side, workers, worker_info, ring, ring2, ev)
    return ScriptCall(SCRIPTS["leave"], keys, (now, consumer, lease, bell, hand_back, events))


def tidy(*, streams: str, workers: str, worker_info: str, now: Arg) -> ScriptCall:
    """Removes the consumers of dead workers."""
    return ScriptCall(SCRIPTS["tidy"], (streams, workers, worker_info), (now,))


def prepare(*, streams: str) -> ScriptCall:
    """Makes the streams and their groups."""
    return ScriptCall(SCRIPTS["prepare"], (streams,), ())


def keep(*, records: str, batch: bytes, blobs: Sequence[bytes]) -> ScriptCall:
    """Stores finished records in a Redis of their own."""
    return ScriptCall(SCRIPTS["keep"], (records,), (batch, *blobs))


def sizes(*, streams: str, due: str, dead: str, paused: str, now: Arg) -> ScriptCall:
    """How much is where in one queue, and whether it is paused."""
    return ScriptCall(SCRIPTS["sizes"], (streams, due, dead, paused), (now,))


def pause(*, paused: str, now: Arg, bell: str, reason: str) -> ScriptCall:
    """Nobody may take jobs of a queue until it is resumed."""
    return ScriptCall(SCRIPTS["pause"], (paused,), (now, bell, reason))


def resume(*, paused: str, bell: str) -> ScriptCall:
    """The jobs of a queue may be taken again."""
    return ScriptCall(SCRIPTS["resume"], (paused,), (bell,))


def purge(
    *, streams: str, records: str, jobs: str, due: str, body: str, side: str, keys: str, ev: str,
    now: Arg, reason: str, idempotency_ttl: int, events: int, batch: bytes, ends: Sequence[bytes],
) -> ScriptCall:  # fmt: skip
    """Cancels a page of jobs, those that still wait."""
    return ScriptCall(
        SCRIPTS["purge"],
        (streams, records, jobs, due, body, side, keys, ev),
        (now, reason, idempotency_ttl, events, batch, *ends),
    )
