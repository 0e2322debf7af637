"""Litestar with the worker inside: enqueue with options, look, cancel.

    pip install 'streamq[embedded]' litestar uvicorn
    uvicorn --app-dir examples litestar_app:api
    curl -X POST 'localhost:8000/reminders?text=tea&minutes=3'
    curl localhost:8000/reminders/<the id of the answer>
    curl -X DELETE localhost:8000/reminders/<the id of the answer>

STREAMQ_URL names the Redis; without it, an embedded server is started.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from litestar import Litestar, delete, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery

from streamq import JobNotFound, StreamQ

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded://"), namespace="reminders")


@queue.task(name="reminders.send")
async def remind(text: str) -> str:
    return f"reminded of {text}"


@asynccontextmanager
async def lifespan(api: Litestar) -> AsyncGenerator[None, None]:
    async with queue, queue.worker(concurrency=20):
        yield


@dataclass
class Reminder:
    job_id: str
    status: str
    due: datetime | None = None


@post("/reminders", status_code=202)
async def set_reminder(text: FromQuery[str], minutes: FromQuery[float] = 0) -> Reminder:
    # A delayed job waits in Redis: it holds no slot of a worker, and survives every restart.
    job = await remind.using(countdown=60 * minutes).enqueue(text)
    return await shown(job.id)


@get("/reminders/{job_id:str}")
async def show_reminder(job_id: FromPath[str]) -> Reminder:
    return await shown(job_id)


@delete("/reminders/{job_id:str}", status_code=200)
async def cancel_reminder(job_id: FromPath[str]) -> Reminder:
    try:
        await queue.job(job_id).cancel("whoever set it wants it no more")
    except JobNotFound:
        raise NotFoundException("no such reminder") from None
    return await shown(job_id)


async def shown(job_id: str) -> Reminder:
    try:
        info = await queue.job(job_id).info()
    except JobNotFound:
        raise NotFoundException("no such reminder") from None
    return Reminder(job_id, info.state, info.due)


api = Litestar(route_handlers=[set_reminder, show_reminder, cancel_reminder], lifespan=[lifespan])
