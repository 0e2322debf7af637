"""How a queue has been doing in the last seconds, from its history and the records of what ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from streamq.broker import wire
from streamq.broker.broker import Broker
from streamq.broker.history import ENDS, History, TransitionKind
from streamq.core.job import Record

WINDOW: Final = 10_000  # ms
MOST: Final = 5_000  # transitions read
SAMPLE: Final = 200  # records read


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs a second that ended and that failed for good, over `window` seconds; None: the queue keeps no history.

    `run` is the last attempt, `wait` from enqueue to its start, in seconds, of `sample` jobs whose records are kept.
    """

    window: float = 0.0
    ended: float | None = None
    failed: float | None = None
    sample: int = 0
    run_p50: float | None = None
    run_p95: float | None = None
    wait_p50: float | None = None
    wait_p95: float | None = None


async def rates(broker: Broker, queue: str) -> Rates:
    """The last ten seconds, or as many as the newest 5,000 transitions cover."""
    if not broker.options.events:
        return Rates()
    now = broker.now_ms()
    ids: list[str] = []
    ended = failed = read = 0
    oldest = now - WINDOW
    history = History(broker).backward(queue, since=now - WINDOW)
    async for transition in history:
        read += 1
        if transition.kind in ENDS:
            ended += 1
            failed += transition.kind is TransitionKind.FAILED
            if len(ids) < SAMPLE:
                ids.append(transition.job_id)
        if read == MOST:
            oldest = transition.at
            break
    await history.aclose()
    window = max(1, now - oldest) / 1000
    records = await _records(broker, queue, ids)
    run = sorted((r.finished_at - r.started_at) / 1000 for r in records if r.started_at and r.finished_at)
    wait = sorted((r.started_at - r.enqueued_at) / 1000 for r in records if r.started_at and r.enqueued_at)
    return Rates(
        window,
        ended / window,
        failed / window,
        len(run),
        _quantile(run, 0.5),
        _quantile(run, 0.95),
        _quantile(wait, 0.5),
        _quantile(wait, 0.95),
    )


async def _records(broker: Broker, queue: str, ids: Sequence[str]) -> list[Record]:
    if not ids:
        return []
    prefix = broker.keys(queue).records
    found = cast("list[bytes | None]", await broker.command("MGET", *[prefix + each for each in ids]))
    return [wire.decode_record(each) for each in found if each is not None]


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return round(max(0.0, ordered[min(len(ordered) - 1, int(part * len(ordered)))]), 4) if ordered else None
