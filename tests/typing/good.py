"""What both type checkers must accept without a word: the public face as a user writes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from streamq import Context, Depends, Job, PayloadCodec, Retry, Secret, StreamQ


@dataclass
class State:
    greeting: str


class Session:
    async def count(self, name: str) -> int:
        return len(name)


@asynccontextmanager
async def lifespan() -> AsyncGenerator[State, None]:
    yield State(greeting="hello")


async def session() -> AsyncGenerator[Session, None]:
    yield Session()


app = StreamQ("redis://localhost:6379/0", namespace="shop", lifespan=lifespan)


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def shout(text: str, *, times: int = 1) -> str:
    return text.upper() * times


@app.task(
    queue="io",
    priority=5,
    max_retries=5,
    autoretry_for=(OSError,),
    retry_backoff=True,
    retry_backoff_max="10m",
    retry_jitter=True,
    time_limit="30s",
    soft_time_limit=timedelta(seconds=20),
    result_ttl="1h",
)
async def fetch(ctx: Context[State], url: str) -> int:
    if ctx.state.greeting == url:
        raise Retry(countdown=5)
    return len(url)


@app.task
async def greet(ctx: Context[State], name: str, polite: bool = False) -> str:
    assert_type(ctx.state.greeting, str)
    return f"{ctx.state.greeting} {name}" if polite else name


@app.task
async def count(name: str, db: Session = Depends(session)) -> int:  # noqa: B008
    return await db.count(name)


@app.task
async def login(user: str, token: Secret[str], tokens: list[Secret[bytes]] | None = None) -> int:
    assert_type(token, str)
    assert_type(tokens, list[bytes] | None)
    return len(token)


class Same:
    def encode(self, data: bytes) -> bytes:
        return data

    def decode(self, data: bytes) -> bytes:
        return data


codec: PayloadCodec = Same()
secure = StreamQ[None](codec=codec, signing_keys=[("2026-11", b"sixteen bytes...")])


@app.cron("0 3 * * *", tz="Europe/Berlin", catch_up="last")
async def nightly() -> None: ...


@app.every("90s")
async def heartbeat() -> None: ...


async def main() -> None:
    async with app:
        job = await add.enqueue(2, y=3)
        assert_type(job, Job[int])
        assert_type(await job.result(timeout=5), int)

        assert_type(await (await shout.enqueue("hey", times=2)).result(), str)
        assert_type(await greet.enqueue("you", polite=True), Job[str])
        assert_type(await count.enqueue("you"), Job[int])
        assert_type(await login.enqueue("ann", "token"), Job[int])
        assert_type(
            await fetch.using(queue="slow", countdown="10m", idempotency_key="k").enqueue("https://example.org"),
            Job[int],
        )
        assert_type(await add.using(countdown=timedelta(minutes=10), priority=9).enqueue(1, 2), Job[int])

        assert_type(await add.delay(2, 3), Job[int])
        assert_type(await add.apply_async((2, 3), countdown=10), Job[int])
        assert_type(add.enqueue_sync(2, 3), Job[int])
        await app.enqueue_many(add.s(i, i) for i in range(10_000))

        assert_type(await add(2, 3), int)
        async with app.worker(concurrency=100):
            await heartbeat.enqueue()
