"""Schedules: an interval, cron expressions, time zones, and two workers of which each occurrence needs one.

Nothing has to run beforehand; the server is embedded, and both workers live inside the script:

    pip install 'streamq[embedded]'
    python examples/cron.py

In production every `streamq worker` runs the schedules too; there is no leader, and no process of its own to guard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

from streamq import Context, Cron, StreamQ

app = StreamQ("embedded://", namespace="cron", tz="Europe/Berlin")
AT_THREE = Cron("0 3 * * *", tz="Europe/Berlin")
ran: Counter[str] = Counter()  # job id -> how often it ran; each occurrence is one job, whose id names it
enough = asyncio.Event()


def note(ctx: Context[None]) -> None:
    ran[ctx.job_id] += 1
    if min(len(occurrences("pulse")), len(occurrences("second"))) >= 2:
        enough.set()


def occurrences(name: str) -> list[int]:
    """When they were due, epoch ms."""
    return sorted(int(job_id.rpartition("-")[2]) for job_id in ran if job_id.startswith(f"cron-{name}-"))


@app.every("1s", name="pulse", catch_up="all")
async def pulse(ctx: Context[None]) -> None:
    note(ctx)


@app.cron("* * * * * *", name="second", catch_up="all")  # six fields: the seconds come first
async def every_second(ctx: Context[None]) -> None:
    note(ctx)


# Of the nights on which no worker was there, the "last" is made up for; "all" are, as above; or none with "skip".
@app.cron(AT_THREE, name="nightly", catch_up="last", kwargs={"kind": "nightly"})
async def report(kind: str) -> str:
    return f"the {kind} report"


def night_after(day: datetime) -> str:
    due = AT_THREE.after(int(day.timestamp() * 1000))
    return datetime.fromtimestamp(due / 1000, UTC).isoformat()


async def main() -> None:
    async with app, app.worker(name="anna"), app.worker(name="bob"):
        print("schedules:", ", ".join(each.name for each in await app.schedules().list()))
        await asyncio.wait_for(enough.wait(), timeout=10)
    for name in ("pulse", "second"):
        due = occurrences(name)
        print(f"{name}: a second apart: {due[1] - due[0] == 1000}, each once: {set(ran.values()) == {1}}")

    print(AT_THREE, "in winter:", night_after(datetime(2026, 1, 15, tzinfo=UTC)))
    print(AT_THREE, "in summer:", night_after(datetime(2026, 7, 15, tzinfo=UTC)))


if __name__ == "__main__":
    asyncio.run(main())
