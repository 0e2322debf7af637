"""The end of `streamq chaos`: what was promised, and what the books say, for people and for programs."""

from __future__ import annotations

from typing import Final

import msgspec

from streamq.cli.chaos.findings import Findings
from streamq.cli.trial.screen import GREEN, PLAIN, RED, YELLOW

PRODUCER: Final = "producer"
Row = tuple[str, str, str]


def as_object(found: Findings) -> str:
    """All of it as one JSON object."""
    return msgspec.json.encode({"ok": found.ok, **msgspec.to_builtins(found)}).decode()


def summary(found: Findings, *, colour: bool) -> str:
    """For people."""
    rows = [f"  {name:<18} {value:>9}   {about}".rstrip() for name, value, about in _counted(found)]
    kept = [_promise(*each, colour=colour) for each in _promises(found)]
    measured = [f"  {name:<18} {value:>9}   {about}".rstrip() for name, value, about in _measured(found)]
    broken = [_paint(f"  broken: {each}", RED, colour) for each in found.broken]
    return "\n".join(
        ["", *rows, "", *kept, "", *measured, *([""] if broken else []), *broken, "", _last(found, colour), ""]
    )


def _last(found: Findings, colour: bool) -> str:
    if not found.ok:
        last, paint = "A promise was broken.", RED
    elif found.complete:
        last, paint = "Every promise was kept.", GREEN
    else:
        last, paint = "Stopped before the end; up to then every promise was kept.", YELLOW
    return _paint(f"  {last}", paint, colour) + f" Seed {found.seed} plays the same faults again."


def _counted(found: Findings) -> list[Row]:
    faults = ", ".join(f"{count} {kind}" for kind, count in found.faults.items()) or "none"
    rows = [
        ("faults", f"{sum(found.faults.values()):,}", faults),
        (
            "enqueued",
            f"{found.enqueued:,}",
            f"acknowledged by Redis; {found.deduplicated:,} calls more were given one of them",
        ),
        ("done", f"{found.done:,}", f"recorded with a result; {found.retried:,} retries on the way"),
        ("poisoned", f"{found.poisoned:,}", "dead letters, as intended: each took down every worker that began it"),
    ]
    if found.crashed:
        rows.append(("crashed", f"{found.crashed:,}", "dead letters: faults cut off each of their starts"))
    if found.unfinished:
        rows.append(("unfinished", f"{found.unfinished:,}", "in Redis, where workers would go on with them"))
    if found.unanswered:
        rows.append(("not acknowledged", f"{found.unanswered:,}", "calls that raised: Redis was away for too long"))
    return rows


def _promises(found: Findings) -> list[tuple[str, int, str]]:
    again = (
        f"{found.started_again:,} second starts: {found.leases_lost:,} leases lost, {found.retried:,} retries, "
        f"{found.given_back:,} given back"
    )
    return [
        ("lost", found.lost, "acknowledged, and neither recorded nor in Redis"),
        ("phantom", found.phantom, "ran or ended, and nobody enqueued it"),
        ("completed twice", found.completed_twice, "recorded more than once, or by a worker that had lost its lease"),
        ("unexplained starts", found.unexplained_starts, again),
        ("overlaps", found.unexplained_overlaps, f"{found.overlaps:,} more beside a worker that had lost its lease"),
        (
            "left behind",
            found.left_behind,
            "entries, keys without an end, consumers of dead workers",
        ),
    ]


def _measured(found: Findings) -> list[Row]:
    rows: list[Row] = []
    back = found.recovery
    if back.jobs:
        late = f", {back.late} of {back.jobs:,} later" if back.late else ""
        about = f"max {back.max:.2f} s from a kill to the next start; promised {back.promised:.2f} s{late}"
        rows.append(("recovery p50", f"{back.p50:.2f} s", about))
    if back.disturbed:
        rows.append(("", f"{back.disturbed:,}", "not counted: the server was away, the third crash, or struck again"))
    if found.server_mib is not None:
        before, after = found.server_mib
        rows.append(("server memory", f"{after:.1f} MiB", f"{before:.1f} MiB before; its keys deleted"))
    for each in sorted(found.growth, key=lambda each: -each.seconds)[:2]:
        (mib, then), (files, now) = each.mib, each.files
        # The producer keeps the books of a round in memory: that says nothing of streamq.
        memory = "" if each.who == PRODUCER else f"; {then:.0f} MiB, {mib:.0f} at first"
        rows.append((each.who, f"{now:,}", f"open files, {files} at first{memory}; {each.seconds:.0f} s later"))
    return [*rows, ("took", f"{found.seconds:.1f} s", "in all")]


def _promise(name: str, count: int, about: str, *, colour: bool) -> str:
    mark = _paint("✗", RED, colour) if count else _paint("✓", GREEN, colour)
    return f"{mark} {name:<18} {count:>9,}   {about}"


def _paint(text: str, paint: str, colour: bool) -> str:
    return f"{paint}{text}{PLAIN}" if colour else text
