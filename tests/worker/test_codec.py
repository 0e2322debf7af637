"""A codec over arguments and results: they are readable nowhere, and what it cannot decode is a dead letter."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest
import redis

from streamq import ConfigurationError, InvalidArguments, JobFailed, PayloadTooLarge, Retry, StreamQ, Undecodable
from streamq.broker import wire
from streamq.broker.broker import NewJob
from streamq.core.codec import SEALED, is_sealed, seal, unseal
from streamq.core.job import JobBody, JobOptions, Reason
from tests.conftest import MakeApp, keys_of
from tests.worker import crunch
from tests.worker.waits import one_server, until


class Mirror:
    """Backwards, behind a mark: enough to tell what went through it."""

    def encode(self, data: bytes) -> bytes:
        return b"mirror:" + data[::-1]

    def decode(self, data: bytes) -> bytes:
        if not data.startswith(b"mirror:"):
            raise ValueError("not of this mirror")
        return data[7:][::-1]


class Zip:
    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


@dataclass
class Order:
    number: int
    secret: str


def tasks(here: StreamQ[Any]) -> StreamQ[Any]:
    tried: list[str] = []

    @here.task(name="order", max_retries=3)
    async def order(order: Order, *, twice: bool = False) -> Order:
        tried.append(order.secret)
        if twice and tried.count(order.secret) == 1:
            raise Retry(countdown=0.01)
        return Order(order.number + 1, order.secret)

    @here.task(name="any", log_args=True)
    async def anything(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    @here.task(name="nothing")
    async def nothing() -> None: ...

    return here


async def test_there_and_back_and_unreadable_in_between(app: MakeApp, url: str, namespace: str) -> None:
    here = tasks(app(lease="1s", codec=Mirror()))
    order = here.tasks["order"]
    async with here:
        jobs = [
            await order.enqueue(Order(1, "sesame")),
            await order.enqueue(Order(1, "sesame again"), twice=True),
            await order.using(serializer="json").enqueue(Order(1, "sesame json"), twice=False),
            await here.tasks["any"].enqueue("sesame", why="sesame"),
            await here.tasks["nothing"].enqueue(),
        ]
        assert b"sesame" not in everything(url, namespace)
        async with here.worker():
            results = [await job.result(timeout=10) for job in jobs]
        assert results[:3] == [Order(2, "sesame"), Order(2, "sesame again"), Order(2, "sesame json")]
        assert results[3:] == [[["sesame"], {"why": "sesame"}], None]
        assert b"sesame" not in everything(url, namespace)
        assert await here.job(jobs[3].id, "default").result() == results[3]


def everything(url: str, namespace: str) -> bytes:
    """All bytes of the namespace, as somebody with access to Redis reads them."""
    with redis.Redis.from_url(url) as client:
        return b"".join(
            client.dump(key) or b"" for key in keys_of(redis.Redis.from_url(url, decode_responses=True), namespace)
        )


async def test_what_it_cannot_decode_is_a_dead_letter_that_can_be_retried(app: MakeApp) -> None:
    here, other, none = (tasks(app(lease="1s", **more)) for more in ({"codec": Mirror()}, {"codec": Zip()}, {}))
    async with here, other, none:
        for blind, why in ((other, "the codec failed: error: Error -3"), (none, "has none: StreamQ")):
            job = await here.tasks["order"].enqueue(Order(1, "x"))
            after = await blind.tasks["any"].enqueue(why)
            async with blind.worker():
                with pytest.raises(JobFailed, match=f"streamq.Undecodable: .*{why}"):
                    await job.result(timeout=10)
                assert await after.result(timeout=10) == [[why], {}]
            (letter,) = await here.broker.dead("default")
            assert (letter.reason, letter.task) == (Reason.UNDECODABLE, "order")
            assert "could not be decoded: they are" in str(await job.explain()) or "the codec failed" in str(
                await job.explain()
            )
            assert await here.dead_letters().retry(job.id) == 1
            async with here.worker():
                await until(partial(_done, here, job.id))


async def _done(here: StreamQ[Any], job_id: str) -> bool:
    record = (await here.broker.find("default", job_id)).record
    return record is not None and record.state == "SUCCESS"


@pytest.mark.parametrize("codec", [None, Mirror()])
async def test_jobs_from_before_the_codec_run(app: MakeApp, codec: Mirror | None) -> None:
    plain, here = tasks(app(lease="1s")), tasks(app(lease="1s", codec=Mirror()))
    async with plain, here:
        job = await plain.tasks["order"].enqueue(Order(1, "x"))
        async with here.worker():
            assert await here.job(job.id, "default").result(timeout=10)
            with pytest.raises(Undecodable, match="codec"):  # its result is encoded
                await job.result(timeout=10)
            with pytest.raises(Undecodable, match="codec"):
                await plain.job(job.id, "default").result()


@pytest.mark.parametrize("serializer", ["json", "yaml"])
async def test_a_serializer_that_the_worker_does_not_take(app: MakeApp, serializer: str) -> None:
    sends, here = app(), tasks(app(lease="1s", accept=["msgpack"]))
    body = JobBody(1, "any", wire.encode_value(["x"]), 1_750_000_000_000)
    body.options = wire.encode_options(JobOptions(codec=serializer))
    async with sends, here:
        await sends.broker.add("default", [NewJob("strange", wire.encode_job(body))])
        async with here.worker():
            with pytest.raises(JobFailed, match=f"Undecodable: they are serialised as '{serializer}'"):
                await here.job("strange", "default").result(timeout=10)
        assert [letter.reason for letter in await here.dead_letters().list()] == [Reason.UNDECODABLE]


async def test_signed_and_encoded(app: MakeApp) -> None:
    here = tasks(app(lease="1s", codec=Mirror(), signing_keys=[("k", b"x" * 16)]))
    async with here, here.worker():
        assert await (await here.tasks["order"].enqueue(Order(1, "x"), twice=True)).result(timeout=10) == Order(2, "x")


async def test_a_bomb_and_what_is_too_large(app: MakeApp) -> None:
    here = tasks(app(lease="1s", codec=Zip(), max_payload=10_000))
    async with here:
        job = await here.tasks["any"].enqueue("x" * 9_000)
        bomb = JobBody(1, "any", seal(Zip(), wire.encode_value(["x" * 20_000])), 1_750_000_000_000)
        assert len(wire.encode_job(bomb)) < 1_000
        await here.broker.add("default", [NewJob("bomb", wire.encode_job(bomb))])
        async with here.worker():
            assert await job.result(timeout=10)
            with pytest.raises(JobFailed, match=r"Undecodable.*20,004 bytes, more than max_payload"):
                await here.job("bomb", "default").result(timeout=10)
        plain = tasks(app(codec=Mirror(), max_payload=10_000))
        async with plain:
            with pytest.raises(PayloadTooLarge):
                await plain.tasks["any"].enqueue("x" * 9_990)


async def test_a_codec_that_cannot_encode(app: MakeApp) -> None:
    class Broken(Mirror):
        broken = True

        def encode(self, data: bytes) -> bytes:
            if self.broken:
                raise OSError("no key")
            return super().encode(data)

    codec = Broken()
    here = tasks(app(lease="1s", codec=codec))
    async with here, here.worker():
        with pytest.raises(InvalidArguments, match="order: the codec cannot encode its arguments: no key"):
            await here.tasks["order"].enqueue(Order(1, "x"))
        codec.broken = False
        job = await here.tasks["order"].using(countdown=0.2).enqueue(Order(1, "x"))
        codec.broken = True
        with pytest.raises(JobFailed, match="InvalidResult: the return value of 'order': no key"):
            await job.result(timeout=10)


async def test_arguments_in_the_log_are_those_that_the_task_saw(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    here = tasks(app(lease="1s", codec=Mirror()))
    with caplog.at_level(logging.INFO, "streamq.job"):
        async with here, here.worker():
            await (await here.tasks["any"].enqueue(7, x="y")).result(timeout=10)
            await until(lambda: "any" in caplog.text)
    assert "(7, x='y')" in caplog.text


@pytest.mark.parametrize("value", ["rot13", b"x", object(), 5])
def test_what_is_no_codec(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"encode\(bytes\)"):
        StreamQ[None](codec=value)


# ---- the bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [b"\x90", b"\xc0", b"\xa3abc" * 1, b"\xc4\x00"])
def test_what_was_not_sealed_stays_what_it_is(plain: bytes) -> None:
    raw = msgspec.Raw(plain)
    assert not is_sealed(raw)
    assert unseal(Mirror(), raw, 10) is raw


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 9, 16, 17, 255, 256, 65_535, 65_536])
def test_all_sizes(size: int) -> None:
    class As:
        def encode(self, data: bytes) -> bytes:
            return data

        decode = encode

    raw = seal(As(), msgspec.Raw(b"x" * size))
    assert is_sealed(raw)
    assert bytes(unseal(As(), raw, size)) == b"x" * size


@pytest.mark.parametrize(
    "torn", [b"", b"\xc7", b"\xc7\x05", b"\xc9\xff\xff\xff\xff\x53", b"\xd4", b"\xd6\xff\x00\x00\x00\x01", b"\xd4\x01x"]
)
def test_other_extensions_and_torn_ones(torn: bytes) -> None:
    assert not is_sealed(msgspec.Raw(torn))


def test_a_codec_that_gives_no_bytes() -> None:
    class Wrong(Mirror):
        def decode(self, data: bytes) -> Any:
            return "text"

    with pytest.raises(Undecodable, match="str, not bytes"):
        unseal(Wrong(), seal(Mirror(), msgspec.Raw(b"\x90")), 10)
    assert msgspec.msgpack.decode(seal(Mirror(), msgspec.Raw(b"\x90"))).code == SEALED


# ---- in child processes ------------------------------------------------------------------------------------------


@one_server
@pytest.mark.parametrize("decodes", [True, False])
async def test_a_child_process_gets_what_the_worker_decoded(app: MakeApp, decodes: bool) -> None:
    sends, here = app(codec=Mirror()), app(lease="1s", pool_size=1, **({"codec": Mirror()} if decodes else {}))
    area = here.task(executor="process", name="area")(crunch.area)
    sends.task(name="area")(crunch.area)
    async with sends, here, here.worker():
        job = await sends.tasks["area"].enqueue(crunch.Box(2, 3), times=2)
        if decodes:
            assert await job.result(timeout=20) == crunch.Box(4, 6)
            assert area.name == "area"
        else:
            with pytest.raises(JobFailed, match="Undecodable"):
                await job.result(timeout=20)
            assert [letter.reason for letter in await here.dead_letters().list()] == [Reason.UNDECODABLE]
