"""The end of the demo: what was promised, and what the books say, for people and for programs."""

from __future__ import annotations

import msgspec

from streamq.cli.demo.tally import Tally
from streamq.cli.trial.screen import GREEN, PLAIN, RED

Row = tuple[str, str, str]


def summary(found: Tally, *, colour: bool) -> str:
    """What was promised, and what the books say."""
    rows = [*_counted(found), ("", "", ""), *_measured(found)]
    lines = [f"  {name:<18} {value:>9}   {about}".rstrip() for name, value, about in rows]
    kept = [_promise(*each, colour=colour) for each in _kept(found)]
    complaints = [_paint(f"  broken: {each}", RED, colour) for each in found.broken]
    last = "Every promise was kept." if found.ok else "A promise was broken."
    end = _paint(f"  {last}", GREEN if found.ok else RED, colour)
    return "\n".join(["", *lines, "", *kept, *complaints, "", end, ""])


def _counted(found: Tally) -> list[Row]:
    again = f"; {found.ran_again} of them ran twice" if found.ran_again else ""
    return [
        ("enqueued", f"{found.enqueued:,}", f"calls acknowledged by Redis, {found.delayed:,} of them delayed"),
        ("deduplicated", f"{found.deduplicated:,}", "same idempotency key: the first job was given back"),
        ("done", f"{found.done:,}", "recorded with a result"),
        ("failed for good", f"{found.failed_as_intended:,}", "as intended; they are dead letters now"),
        ("retried", f"{found.retried:,}", "attempts after an exception"),
        ("recovered", f"{found.recovered:,}", f"begun by the killed worker, ended by another{again}"),
        ("cron fired", f"{found.cron_fired:,}", "one job a second, from whichever worker was first"),
    ]


def _measured(found: Tally) -> list[Row]:
    rows = [("throughput", f"{found.throughput:,.0f}/s", "of the burst: first enqueue to last job's end")]
    if found.latency is not None:
        about = f"p99 {found.latency.p99:.1f} ms, from enqueue() to the task, workers idle"
        rows.append(("latency p50", f"{found.latency.p50:.1f} ms", about))
    return [*rows, ("took", f"{found.seconds:.1f} s", "in all")]


def _kept(found: Tally) -> list[tuple[str, int, str]]:
    return [
        ("lost", found.lost, "acknowledged, and neither recorded nor in Redis"),
        ("completed twice", found.completed_twice, "recorded more than once"),
    ]


def _promise(name: str, count: int, about: str, *, colour: bool) -> str:
    mark = _paint("✗", RED, colour) if count else _paint("✓", GREEN, colour)
    return f"{mark} {name:<18} {count:>9,}   {about}"


def _paint(text: str, paint: str, colour: bool) -> str:
    return f"{paint}{text}{PLAIN}" if colour else text


def as_object(found: Tally) -> str:
    """The numbers as one JSON object."""
    return msgspec.json.encode({"ok": found.ok, **msgspec.to_builtins(found)}).decode()
