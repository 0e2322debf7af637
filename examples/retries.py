"""A flaky HTTP call that is retried with backoff, and a dead letter that is found and replayed.

Nothing has to run beforehand; the server, the worker and the flaky shop all live inside the script:

    pip install 'streamq[embedded]' httpx
    python examples/retries.py
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from streamq import Context, MaxRetriesExceeded, Reject, Retry, StreamQ

asked: Counter[str] = Counter()
broken = {"/orders/2"}


async def shop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A web server: order 1 is there at the third attempt, order 2 once somebody mends it, others never."""
    path = (await reader.readline()).decode().split()[1]
    asked[path] += 1
    busy = path == "/orders/1" and asked[path] < 3
    status = "503 Busy" if busy else "500 Broken" if path in broken else "200 OK" if path < "/orders/3" else "404 None"
    writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbook".encode())
    await writer.drain()
    writer.close()


@dataclass
class State:
    http: httpx.AsyncClient


@asynccontextmanager
async def lifespan() -> AsyncGenerator[State, None]:
    """What a worker opens at its start and tasks share: connections."""
    server = await asyncio.start_server(shop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
        yield State(http)


app = StreamQ("embedded://", namespace="retries", lifespan=lifespan)


# Waits 0.05, 0.1 and 0.2 s; in production retry_backoff=True waits 1, 2, 4 ... s, each at random up to that.
@app.task(max_retries=3, autoretry_for=(httpx.HTTPError,), retry_backoff=0.05, retry_jitter=False, time_limit="30s")
async def fetch(ctx: Context[State], path: str) -> str:
    response = await ctx.state.http.get(path)
    if response.status_code == 404:
        raise Reject(f"{path} does not exist")  # no retry will change that
    if response.status_code == 503:
        raise Retry(countdown=0.05, reason="the shop is busy")  # it said how long to wait
    response.raise_for_status()
    return f"{response.text} on attempt {ctx.attempt}"


async def main() -> None:
    async with app, app.worker(concurrency=10):
        print("flaky:", await (await fetch.enqueue("/orders/1")).result(timeout=10))

        job = await fetch.enqueue("/orders/2")
        try:
            await job.result(timeout=10)
        except MaxRetriesExceeded as error:
            print("gave up:", error.error, "after", (await job.info()).attempts, "attempts")

        for letter in await app.dead_letters().list(error="HTTPStatusError"):
            print("dead letter:", letter.reason, "with", len(letter.failures), "failures")
        broken.clear()  # somebody mends the shop
        print("replayed:", await app.dead_letters().retry(error="HTTPStatusError"))
        print("now:", await job.result(timeout=10))

        gone = await fetch.enqueue("/orders/9")
        print("rejected:", str(await gone.result(timeout=10, raises=False)).splitlines()[0].partition(": ")[2])
        print("discarded:", await app.dead_letters().discard())


if __name__ == "__main__":
    asyncio.run(main())
