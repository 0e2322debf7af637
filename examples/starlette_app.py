"""Starlette with the worker inside: a job that is enqueued, and followed as server-sent events until it ends.

    pip install 'streamq[embedded]' starlette uvicorn
    uvicorn --app-dir examples starlette_app:api
    curl -X POST 'localhost:8000/imports?rows=500'
    curl localhost:8000/imports/<the id of the answer>

STREAMQ_URL names the Redis; without it, an embedded server is started.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from streamq import Context, Job, JobError, JobNotFound, StreamQ

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded://"), namespace="imports")


@queue.task(name="imports.run", time_limit="10m")
async def run_import(ctx: Context[None], rows: int) -> int:
    for done in range(0, rows, 100):
        await ctx.progress(done, total=rows)
        await asyncio.sleep(0.05)  # stands for work
    return rows


@asynccontextmanager
async def lifespan(api: Starlette) -> AsyncGenerator[None, None]:
    async with queue, queue.worker(concurrency=20):
        yield


async def start_import(request: Request) -> JSONResponse:
    rows = request.query_params.get("rows", "")
    if not rows.isdecimal():
        raise HTTPException(400, "rows must be a number")
    job = await run_import.enqueue(int(rows))
    return JSONResponse({"job_id": job.id}, status_code=202)


async def follow_import(request: Request) -> StreamingResponse:
    job: Job[int] = queue.job(request.path_params["job_id"])
    try:
        await job.status()
    except JobNotFound:
        raise HTTPException(404, "no such import, or its result is no longer kept") from None
    return StreamingResponse(events(job), media_type="text/event-stream")


async def events(job: Job[int]) -> AsyncGenerator[str, None]:
    """The progress, five times a second, and in the end the result or the error."""
    ended = asyncio.ensure_future(job.result())
    try:
        while not ended.done():
            if progress := await job.progress():
                yield event("progress", progress.fraction)
            await asyncio.wait([ended], timeout=0.2)
        yield event("done", ended.result())
    except JobError as error:
        yield event("failed", str(error).partition("\n")[0])
    finally:
        ended.cancel()  # whoever listened has gone


def event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


api = Starlette(
    routes=[
        Route("/imports", start_import, methods=["POST"]),
        Route("/imports/{job_id}", follow_import),
    ],
    lifespan=lifespan,
)
