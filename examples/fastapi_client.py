"""FastAPI with the worker outside: the API only enqueues, `streamq worker` runs the jobs, and each scales alone.

    pip install 'streamq[embedded]' fastapi uvicorn
    uvicorn --app-dir examples fastapi_client:api           # one terminal
    streamq worker examples/fastapi_client.py               # another one
    curl -X POST 'localhost:8000/reports?month=2026-11'
    curl 'localhost:8000/reports/<the id of the answer>?wait=10'

STREAMQ_URL names the Redis of both. Without it the API brings a server along, in a folder where the worker finds it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel

from streamq import Context, JobError, JobNotFound, ResultTimeout, StreamQ

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded:///tmp/streamq-reports"), namespace="reports")


@queue.task(name="reports.build", max_retries=3, autoretry_for=(ConnectionError,), retry_backoff=True)
async def build(ctx: Context[None], month: str, pages: int = 10) -> str:
    for page in range(1, pages + 1):
        await asyncio.sleep(0.02)  # stands for work
        await ctx.progress(page, total=pages, note=f"page {page}")
    return f"the report of {month}: {pages} pages"


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncGenerator[None, None]:
    async with queue:  # a connection, and no worker
        yield


api = FastAPI(lifespan=lifespan)


class Report(BaseModel):
    job_id: str
    status: str
    progress: float | None = None
    result: str | None = None
    error: str | None = None


@api.post("/reports", status_code=202)
async def order_report(month: str) -> Report:
    # Whoever asks twice for one month is given the same job.
    job = await build.using(idempotency_key=month).enqueue(month)
    return Report(job_id=job.id, status=await job.status())


@api.get("/reports/{job_id}")
async def show_report(job_id: str, wait: Annotated[float, Query(ge=0, le=30)] = 0) -> Report:
    """Answers at once, or when the report is ready, `wait` seconds later at most."""
    job = queue.job(job_id)
    report = Report(job_id=job_id, status="")
    try:
        if wait or await job.ready():
            report.result = str(await job.result(timeout=wait or 1))
    except JobNotFound:
        raise HTTPException(404, "no such report, or it is no longer kept") from None
    except ResultTimeout:
        pass  # still under way: the status says where
    except JobError as error:
        report.error = str(error).partition("\n")[0]
    info = await job.info()
    report.status = info.state
    report.progress = info.progress.fraction if info.progress else None
    return report
