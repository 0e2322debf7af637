"""FastAPI with the worker inside: one process answers requests and runs the jobs.

    pip install 'streamq[embedded]' fastapi uvicorn
    uvicorn --app-dir examples fastapi_app:api
    curl -X POST 'localhost:8000/thumbnails?url=https://example.org/cat.png'
    curl localhost:8000/jobs/<the id of the answer>

STREAMQ_URL names the Redis; without it, an embedded server is started.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from streamq import JobError, JobNotFound, StreamQ

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded://"), namespace="thumbnails")


@queue.task(max_retries=3, autoretry_for=(ConnectionError,), retry_backoff=True, time_limit="30s")
def thumbnail(url: str, width: int = 128) -> str:
    """Stands for work that takes long; a plain function runs in a thread and does not hold up requests."""
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not an address that I fetch")
    return f"{url}?width={width}"


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncGenerator[None, None]:
    async with queue, queue.worker(concurrency=20):
        yield


api = FastAPI(lifespan=lifespan)


class Accepted(BaseModel):
    job_id: str


class Answer(BaseModel):
    job_id: str
    status: str
    result: str | None = None
    error: str | None = None


@api.post("/thumbnails", status_code=202)
async def make_thumbnail(url: str) -> Accepted:
    job = await thumbnail.using(result_ttl="10m").enqueue(url)
    return Accepted(job_id=job.id)


@api.get("/jobs/{job_id}")
async def show_job(job_id: str) -> Answer:
    job = queue.job(job_id)
    try:
        status = await job.status()
    except JobNotFound:
        raise HTTPException(404, "no such job, or its result is no longer kept") from None
    answer = Answer(job_id=job_id, status=status)
    if status.final:
        try:
            answer.result = str(await job.result(timeout=5))
        except JobError as error:
            answer.error = str(error).partition("\n")[0]
    return answer
