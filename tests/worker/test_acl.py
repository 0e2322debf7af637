"""A producer and a worker as the users that `streamq acl` prints, and what these may not do."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from click.testing import CliRunner
from redis.exceptions import NoPermissionError, ResponseError

from streamq import Context, Job, JobFailed, Reject, Retry, Snooze, State, StreamQ
from streamq.broker import acl as table
from streamq.broker.facts import gather
from streamq.broker.keys import Keys, inbox, queues
from streamq.broker.rates import rates
from streamq.broker.scripts import SCRIPTS
from streamq.cli.commands.acl import acl
from streamq.errors import BrokerError
from tests.conftest import PROGRAMS
from tests.faults.servers import Server
from tests.worker.waits import until

PROJECT = Path(__file__).parents[2]
# What is asked for, and may be refused: redis-py says who it is, doctor asks for the settings and for its name.
REFUSED = "ACL failure|NOPERM|permission|user executing the script"  # how servers say it of what a script calls
# In the table, and not called here: for another database, for durability.
UNCALLED = {"select", "wait"}
UNANSWERED = {"client|setinfo", "config|get", "acl|whoami", "info", "command|info"}


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, fsync="everysec") as server:
        for role in ("producer", "worker"):
            typed = CliRunner().invoke(
                acl, ["--role", role, "--queue", "orders", "--namespace", "shop", "--user", role]
            )
            assert typed.exit_code == 0, typed.output
            server.client().execute_command(*typed.output.replace("PASSWORD", "pw").split())
        yield server


def url(server: Server, role: str) -> str:
    return server.url.replace("unix://", f"unix://{role}:pw@")


def denied(server: Server) -> set[str]:
    log = cast("list[dict[str, Any]]", server.client().acl_log())
    return {each["object"] for each in log}


def tasks(app: StreamQ[Any]) -> StreamQ[Any]:
    tried: dict[str, int] = {}

    @app.task(name="work", queue="orders", max_retries=3)
    async def work(ctx: Context[Any], how: str) -> str:
        tried[how] = tried.get(how, 0) + 1
        await ctx.progress(1, total=2, note="half")
        if how == "retry" and tried[how] == 1:
            raise Retry(countdown=0.01)
        if how == "snooze" and tried[how] == 1:
            raise Snooze(0.01)
        if how == "reject":
            raise Reject("no")
        if how == "long":
            await asyncio.sleep(60)
        return how

    @app.task(name="early", queue="orders", acks_early=True, max_retries=1)
    async def early() -> str:
        tried["early"] = tried.get("early", 0) + 1
        if tried["early"] == 1:
            raise Retry(countdown=0.01)
        return "early"

    @app.every("0.2s", name="tick")
    @app.task(name="tick", queue="orders")
    async def tick() -> None: ...

    return app


def application(server: Server, role: str, **more: Any) -> StreamQ[Any]:
    return tasks(StreamQ(url(server, role), namespace="shop", lease="0.5s", **more))


async def test_a_producer_and_a_worker_do_all_their_work(server: Server) -> None:
    shop, crew = application(server, "producer"), application(server, "worker")
    server.client().acl_log_reset()
    async with shop, crew:
        work = shop.tasks["work"]
        jobs = [
            await work.enqueue("plain"),
            await work.enqueue("retry"),
            await work.enqueue("snooze"),
            await work.using(countdown=0.05).enqueue("later"),
            await work.using(job_id="mine").enqueue("own id"),
            await work.using(idempotency_key="k", on_failed="retry").enqueue("key"),
            await shop.tasks["early"].enqueue(),
            *await shop.enqueue_many(work.s("many") for _ in range(3)),
        ]
        dead = await work.enqueue("reject")
        assert (await work.using(idempotency_key="k").enqueue("key")).deduplicated
        await crashed(crew)
        async with crew.worker(queues=["orders"]):
            results = [await job.result(timeout=10) for job in jobs]
            with pytest.raises(JobFailed):
                await dead.result(timeout=10)
            await operate(shop, crew, dead.id)
        assert results == ["plain", "retry", "snooze", "later", "own id", "key", "early", *["many"] * 3]
        assert (await shop.job(jobs[0].id, "orders").info()).state == "SUCCESS"
        await look(shop, jobs[0].id)
    assert denied(server) <= UNANSWERED
    called = {name.removeprefix("cmdstat_") for name in server.client().info("commandstats")}
    assert set(table.commands("worker")) - called == UNCALLED


async def look(shop: StreamQ[Any], job_id: str) -> None:
    """What a producer may ask."""
    await shop.queue("orders").info()
    assert (await shop.job(job_id).timeline()).steps
    await shop.dead_letters("orders").list()
    await rates(shop.broker, "orders")
    assert await shop.broker.queues() == ["orders"]
    await gather(shop.broker)


async def crashed(crew: StreamQ[Any]) -> None:
    """All jobs were delivered to a worker that died."""
    broker = crew.broker
    await broker.prepare("orders")
    await broker.turn("orders", "dead", [], 500, request=1)


async def operate(shop: StreamQ[Any], crew: StreamQ[Any], dead: str) -> None:
    """What operators do, with the rights of a worker."""
    queue, letters = crew.queue("orders"), crew.dead_letters("orders")
    running = await shop.tasks["work"].enqueue("long")
    await until(lambda: _running(running))
    assert await crew.job(running.id, "orders").cancel("enough") == "cancelling"
    waiting = await shop.tasks["work"].using(countdown=60).enqueue("never")
    assert await crew.job(waiting.id, "orders").explain()
    assert [job_id async for job_id in queue.ids()]
    assert await crew.job(waiting.id, "orders").cancel() == "cancelled"
    hastened = await shop.tasks["work"].using(countdown=60).enqueue("now")
    await crew.job(hastened.id, "orders").retry_now()
    assert await hastened.result(timeout=10) == "now"
    assert (await letters.list())[0].job_id == dead
    assert await letters.retry(dead) == 1
    await until(lambda: _dead_again(crew))
    assert await letters.discard(dead) == 1
    await queue.pause("for the test")
    held = await shop.tasks["work"].enqueue("purged")
    await until(lambda: _waits(held))  # a read that blocked can have brought it, and then it is given back
    assert await queue.purge() >= 1
    await queue.resume()
    assert (await held.timeline()).steps
    await crew.schedules().pause("tick")
    await crew.schedules().resume("tick")
    await crew.schedules().list()


async def _running(job: Any) -> bool:
    return await job.status() == "STARTED"


async def _waits(job: Job[Any]) -> bool:
    return await job.status() is State.QUEUED


async def _dead_again(crew: StreamQ[Any]) -> bool:
    return await crew.dead_letters("orders").count() == 1


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_info_and_doctor(server: Server, role: str) -> None:
    client = server.client()
    asyncio.run(seed(server))
    client.acl_log_reset()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    for command in ("info", "doctor"):
        done = subprocess.run(
            [sys.executable, "-m", "streamq", command, "--url", url(server, role), "--namespace", "shop"],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=server.folder,
            env={**clean, "PYTHONPATH": str(PROJECT)},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert denied(server) <= UNANSWERED


async def seed(server: Server) -> None:
    shop, crew = application(server, "producer"), application(server, "worker")
    async with shop, crew, crew.worker(queues=["orders"]):
        await (await shop.tasks["work"].enqueue("plain")).result(timeout=10)


FORBIDDEN = {
    "producer": [
        "XREADGROUP GROUP w me COUNT 1 STREAMS sq:{shop/orders}:s:0 >",
        "XACK sq:{shop/orders}:s:0 w 1-0",
        "XCLAIM sq:{shop/orders}:s:0 w me 0 1-0",
        "XDEL sq:{shop/orders}:s:0 1-0",
    ],
    "worker": ["XGROUP DESTROY sq:{shop/orders}:s:0 w", "XTRIM sq:{shop/orders}:s:0 MAXLEN 0"],
}
FOR_BOTH = [
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET maxmemory", "CONFIG SET maxmemory 1", "SCRIPT FLUSH",
    "ACL LIST", "SHUTDOWN", "CLIENT KILL TYPE normal", "MONITOR",
    "GET sq:{shop/mail}:r:1", "HGETALL sq:{shop/mail}:jobs", "GET sq:{other/orders}:r:1", "SET elsewhere 1",
    "PUBLISH sq:{shop/mail}:bell x", "SUBSCRIBE sq:{shop/mail}:bell", "PSUBSCRIBE *",
]  # fmt: skip


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_what_they_may_not_do(server: Server, role: str) -> None:
    asyncio.run(seed(server))
    with redis.Redis.from_url(url(server, role)) as client:
        for line in [*FORBIDDEN[role], *FOR_BOTH]:
            with pytest.raises(NoPermissionError):
                client.execute_command(*line.split())
        for call in ("return redis.call('GET', 'elsewhere')", "return redis.call('KEYS', '*')"):
            with pytest.raises(ResponseError, match=REFUSED):
                client.eval(call, 0)


async def test_a_producer_cannot_take_nor_finish_nor_cancel(server: Server) -> None:
    shop = application(server, "producer")
    async with shop:
        job = await shop.tasks["work"].enqueue("plain")
        for forbidden in (
            lambda: shop.broker.turn("orders", "me", [], 1, request=1),
            lambda: shop.broker.reclaim("orders", "me", lease_ms=1, want=1, suspects=1),
        ):
            with pytest.raises(ResponseError, match=REFUSED):
                await forbidden()
        with pytest.raises(BrokerError):
            await job.cancel()
        assert await job.status() == "QUEUED"
    assert server.client().xlen(Keys("shop", "orders").stream(0)) == 1


async def test_where_commands_are_renamed_away(tmp_path: Path) -> None:
    conf = tmp_path / "renamed.conf"
    conf.write_text('rename-command CONFIG ""\nrename-command KEYS ""\nrename-command FLUSHALL ""\n')
    for kind in PROGRAMS:
        with Server(kind, fsync="everysec", include=str(conf)) as server:
            with pytest.raises(ResponseError, match="unknown command"):
                server.client().execute_command("CONFIG", "GET", "maxmemory")
            app = tasks(StreamQ(server.url, namespace="shop", lease="0.5s"))
            async with app, app.worker():
                assert await (await app.tasks["work"].enqueue("retry")).result(timeout=10) == "retry"
            clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
            for command in ("info", "doctor"):
                words = [sys.executable, "-m", "streamq", command, "--url", server.url, "--namespace", "shop"]
                environ = {**clean, "PYTHONPATH": str(PROJECT)}
                done = await asyncio.to_thread(
                    subprocess.run, words, capture_output=True, text=True, timeout=30, cwd=tmp_path, env=environ
                )
                assert done.returncode == 0, done.stdout + done.stderr


# ---- the table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_the_table_says_what_the_scripts_call(server: Server, role: table.Role) -> None:
    """Every command that is named in a script is in the table, and none that is not."""
    known = {name.decode() for name in cast("list[bytes]", server.client().command_list())}
    words = {
        word.lower() for name in table.SCRIPTS_OF[role] for word in re.findall(r"'([A-Z]{2,})'", SCRIPTS[name].text)
    }
    called = words & known
    if role == "producer":
        called.discard("xdel")  # see the table
    assert called == {each.partition("|")[0] for each in table.IN_SCRIPTS[role]}
    assert {each.partition("|")[0] for each in table.SENT[role]} <= known


def test_names_that_mean_something_in_a_pattern() -> None:
    rules = table.rules("worker", "a*b", ["x?[y]"])
    assert "~sq:{a\\*b/x\\?\\[y\\]}:*" in rules
    assert f"~{queues('a')}" in table.rules("worker", "a", ["q"])
    assert f"&{inbox('a', '*')}" in table.rules("worker", "a", ["q"])


def test_a_name_that_is_no_queue() -> None:
    typed = CliRunner().invoke(acl, ["--role", "worker", "--queue", "a b"])
    assert typed.exit_code != 0
    assert CliRunner().invoke(acl, ["--role", "boss"]).exit_code == 2
