"""Anything at all in the streams of a running worker: it becomes a dead letter, and the good jobs between are done."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streamq import StreamQ
from streamq.core.codec import PayloadCodec
from streamq.core.job import Reason
from tests.conftest import keys_of
from tests.worker.fuzzed import bodies, envelopes

ids = (
    st.text(max_size=12).map(str.encode) | st.binary(max_size=12) | st.sampled_from([b"good-1", b"twice", b"", b"a b"])
)
written = st.tuples(ids, bodies | envelopes(st.just("echo") | st.text(max_size=5))).map(
    lambda pair: [b"i", pair[0], b"j", pair[1]]
)
strange = st.lists(st.binary(max_size=12), min_size=2, max_size=6).filter(lambda fields: len(fields) % 2 == 0)
entries = st.lists(st.tuples(st.integers(0, 9), written | strange, st.booleans()), min_size=1, max_size=12)

EXPECTED = {Reason.UNREADABLE, Reason.FAILED, Reason.BAD_SIGNATURE, Reason.UNDECODABLE}


class Failures(logging.Handler):
    """What the worker says when something got past it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Backwards:
    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    decode = encode


@settings(
    max_examples=10,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a smaller example would take minutes to find
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(garbage=entries, signed=st.booleans(), codec=st.sampled_from([None, Backwards()]))
def test_garbage_between_good_jobs(url: str, garbage: list[Any], signed: bool, codec: PayloadCodec | None) -> None:
    namespace = f"t{uuid.uuid4().hex[:12]}"
    failures = Failures()
    for name in ("streamq.worker", "asyncio"):
        logging.getLogger(name).addHandler(failures)
    try:
        keys = [("k", b"x" * 16)] if signed else None
        here = StreamQ[None](url, namespace=namespace, lease="0.3s", signing_keys=keys, codec=codec)  # type: ignore[arg-type]
        asyncio.run(serve(here, garbage))
    finally:
        for name in ("streamq.worker", "asyncio"):
            logging.getLogger(name).removeHandler(failures)
        with redis.Redis.from_url(url, decode_responses=True) as client:
            for key in keys_of(client, namespace):
                client.delete(key)
    assert [said for said in failures.said if "unknown task" not in said] == []


async def serve(here: StreamQ[None], garbage: list[Any]) -> None:
    starts = 0

    @here.task(name="echo", ignore_result=False)
    async def echo(value: Any = None, *rest: Any, **more: Any) -> Any:
        nonlocal starts
        starts += 1
        return value

    async with here:
        line, keys = here.broker.line("commands"), here.broker.keys("default")
        await here.broker.prepare("default")
        good = []
        for number, (priority, fields, by_the_way_of_due) in enumerate(garbage):
            if by_the_way_of_due and fields[0] == b"i" and len(fields) >= 4:
                await line.call("HSET", keys.body, fields[1], fields[3])
                await line.call("HSET", keys.jobs, fields[1], f"d{priority}")
                await line.call("ZADD", keys.due, 1, fields[1])
            else:
                await line.call("XADD", keys.stream(priority), "*", *fields)
            good.append(await echo.using(job_id=f"fine-{number}").enqueue(number))
        async with asyncio.timeout(20), here.worker(concurrency=4) as worker:
            assert [await each.result() for each in good] == list(range(len(garbage)))
            forged = here.options.signing_keys is not None  # else what names an unknown task waits, for an hour
            while (forged and await line.call("ZCARD", keys.due)) or sum(
                [await line.call("XLEN", keys.stream(priority)) for priority in range(10)]  # type: ignore[misc]
            ):
                await asyncio.sleep(0.005)
            assert worker.crew is not None
            while not worker.crew.slots.empty:
                await asyncio.sleep(0.005)
        assert starts <= 2 * len(garbage)  # each once
        letters = await here.broker.dead("default", limit=100)
        assert {letter.reason for letter in letters} <= EXPECTED
        bodies = {each[1][3] if named(each) is not None else b" ".join(each[1]) for each in garbage}
        if forged:  # none of it is signed: all of it is dead, with its bytes
            assert {letter.body for letter in letters} <= bodies
            assert {letter.job_id for letter in letters} >= set(filter(None, map(named, garbage)))


def named(entry: tuple[int, list[bytes], bool]) -> str | None:
    """Under which id it is a dead letter; None: one that the worker makes up."""
    _, fields, _ = entry
    try:
        return fields[1].decode() if len(fields) == 4 and (fields[0], fields[2]) == (b"i", b"j") else None
    except UnicodeDecodeError:
        return None
