"""Queues and workers as rows, for the commands that show them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from streamq.cli.console import Format, ago, iso, show

if TYPE_CHECKING:
    from streamq.broker.inspector import QueueInfo, WorkerInfo
    from streamq.client.app import Application

QUEUE_COLUMNS: Final = ("queue", "queued", "running", "scheduled", "dead", "oldest", "workers", "paused", "reason")
WORKER_COLUMNS: Final = ("id", "host", "pid", "version", "queues", "running", "concurrency", "since", "jobs")

Rows = list[dict[str, Any]]


async def queue_rows(app: Application[Any], names: Sequence[str]) -> Rows:
    """These queues."""
    inspector = await app.link.inspector()
    return [queue_row(each) for each in await asyncio.gather(*map(inspector.queue, names))]


async def worker_rows(app: Application[Any], names: Sequence[str]) -> Rows:
    """The live workers of these queues, each once, by name."""
    inspector = await app.link.inspector()
    served = await asyncio.gather(*map(inspector.workers, names))
    found = {worker.id: worker for workers in served for worker in workers}
    return [_worker(found[name]) for name in sorted(found)]


def show_queues(rows: Rows, form: Format | None, *, empty: str = "") -> None:
    """A table, text or JSON; people read how old the oldest job is, programs its age in seconds."""
    if form is None and sys.stdout.isatty():
        rows = [{**row, "oldest": ago(row["oldest"]) if row["oldest"] else None} for row in rows]
    show(rows, form, columns=QUEUE_COLUMNS, empty=empty)


def show_workers(rows: Rows, form: Format | None, *, empty: str = "") -> None:
    """A table, text or JSON; text names the running jobs as `task:id`."""
    show(rows if form else in_words(rows), form, columns=WORKER_COLUMNS, empty=empty)


def in_words(rows: Iterable[Mapping[str, Any]]) -> Rows:
    """Workers with their running jobs as text."""
    return [{**row, "jobs": [f"{job['task']}:{job['id']}" for job in row["jobs"]]} for row in rows]


def queue_row(info: QueueInfo) -> dict[str, Any]:
    """One queue's figures by name; `oldest` in seconds."""
    return {
        "queue": info.name,
        "queued": info.queued,
        "running": info.running,
        "scheduled": info.scheduled,
        "dead": info.dead,
        "oldest": round(info.oldest, 3),
        "workers": info.workers,
        "paused": iso(info.paused.since) if info.paused else None,
        "reason": info.paused.reason if info.paused else "",
        "by_priority": {str(priority): count for priority, count in info.by_priority.items()},
    }


def _worker(info: WorkerInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "host": info.host,
        "pid": info.pid,
        "version": info.version,
        "queues": info.queues,
        "running": len(info.running),
        "concurrency": info.concurrency,
        "since": iso(info.started_at),
        "jobs": [{"id": job_id, "task": task, "since": iso(since)} for job_id, task, since in info.running],
        "tasks": info.tasks,
    }
