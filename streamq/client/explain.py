"""Why a job does not run: it is looked for everywhere, and so is whatever is left of one that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from streamq.broker.broker import Broker
from streamq.broker.history import ENDS, History, Transition, TransitionKind
from streamq.broker.inspector import Inspector
from streamq.client.link import Link
from streamq.client.standing import ROOM, Case, Explanation, dead, out_of_memory
from streamq.core.clock import ago
from streamq.core.ids import made_at

_SAID: Final = {
    TransitionKind.SUCCEEDED: "succeeded",
    TransitionKind.FAILED: "failed",
    TransitionKind.CANCELLED: "was cancelled",
    TransitionKind.EXPIRED: "expired before it could start",
}


async def explain(link: Link, job_id: str, queue: str = "") -> Explanation:
    """Why a job does not run, or how it stands. It is looked for in `queue` first, then in all others."""
    broker, inspector = await link.open(), await link.inspector()
    known = [queue] if queue else []
    queues = list(dict.fromkeys([*known, *link.known.queues(), *await broker.queues()]))
    for found in await asyncio.gather(*(broker.find(each, job_id) for each in queues)):
        if found.where != "gone" or found.record is not None:
            return await Case(link, broker, inspector, found).explained()
    letters = await asyncio.gather(*(broker.dead_one(each, job_id) for each in queues))
    for name, letter in zip(queues, letters, strict=True):
        if letter is not None:
            return dead(name, letter, broker.now_ms())
    return await _unknown(link, broker, inspector, job_id, queues)


async def _unknown(link: Link, broker: Broker, inspector: Inspector, job_id: str, queues: Sequence[str]) -> Explanation:
    now, kept = broker.now_ms(), f"results are kept for {ago(link.options.result_ttl / 1000)} (result_ttl)"
    ends = await asyncio.gather(*(_last(broker, queue, job_id) for queue in queues))
    if (end := max((each for each in ends if each), key=lambda each: each.at, default=None)) is not None:
        when = ago(max(0, now - end.at) / 1000)
        return Explanation(
            None,
            f"It {_SAID[end.kind]} {when} ago, and nothing is kept of it any more: {kept}, and not at all with"
            " ignore_result.",
        )
    names = ", ".join(map(repr, queues))
    where = f"in the queue{'s' if len(queues) > 1 else ''} {names}" if queues else "in any queue"
    cause = f"There is no job {job_id!r} {where} of the namespace {link.options.namespace!r}."
    if full := out_of_memory(await inspector.servers()):
        return Explanation(None, f"{cause} {full}", ROOM)
    made = made_at(job_id)
    if made is not None and now - made > link.options.result_ttl:
        return Explanation(None, f"{cause} Its id was made {ago((now - made) / 1000)} ago, and {kept}.")
    return Explanation(
        None, cause, f"Look at the id, --namespace and --url; or it has ended, and its record is gone: {kept}."
    )


async def _last(broker: Broker, queue: str, job_id: str) -> Transition | None:
    """How a job ended of which nothing else is left."""
    async with aclosing(History(broker).backward(queue, job_id=job_id)) as transitions:
        async for each in transitions:
            return each if each.kind in ENDS else None
    return None
