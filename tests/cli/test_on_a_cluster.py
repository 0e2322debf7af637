"""Commands as they are typed against a cluster and against Sentinels: what is on several servers is one to its user."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamq import StreamQ
from streamq.cli.commands.acl import acl
from streamq.client.waiting import gather
from streamq.errors import BrokerError
from tests.cli.commands import READY, Command
from tests.cli.conftest import Start
from tests.conftest import PROGRAMS
from tests.topologies import ClusterSet, SentinelSet
from tests.worker.crews import environment, write_jobs
from tests.worker.spread import left_over, spread

pytestmark = pytest.mark.sets

KIND = next(iter(PROGRAMS))
LOOKS = ("info", "queues", "jobs list", "workers", "doctor", "top", "dlq list")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSet]:
    with ClusterSet(KIND) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    with SentinelSet(KIND, down_after_ms=5000) as watched:
        yield watched


@pytest.fixture
def queues(cluster: ClusterSet, namespace: str) -> list[str]:
    return spread(cluster, namespace)


@pytest.fixture(autouse=True)
def no_key_is_left(cluster: ClusterSet, namespace: str) -> Iterator[None]:
    yield
    assert list(left_over(cluster, namespace)) == []


@pytest.fixture
async def app(cluster: ClusterSet, namespace: str) -> AsyncIterator[StreamQ[Any]]:
    async with StreamQ(cluster.url, namespace=namespace, lease="1s") as app:
        yield app


async def test_all_servers_are_looked_at(
    app: StreamQ[Any], queues: list[str], cluster: ClusterSet, namespace: str, start: Start
) -> None:
    """Each queue has a job that waits and one that is delayed; one of the queues is paused."""
    one, two, _ = queues
    for name in queues:
        await app.send_task("shop.add", queue=name, job_id=f"{name}-now")
        await app.send_task("shop.add", queue=name, job_id=f"{name}-later", countdown=3600)
    await app.queue(two).pause("for a while")
    environ = {"STREAMQ_URL": cluster.url, "STREAMQ_NAMESPACE": namespace}
    asked = {words: start(*words.split(), "--json", **environ) for words in LOOKS}
    asked |= {name: start("explain", f"{name}-now", "--queue", name, **environ) for name in (one, two)}
    found = {words: await asyncio.to_thread(ended, process) for words, process in asked.items()}
    assert {server["url"] for server in found["info"]["servers"]} == {f"{node.url}" for node in cluster.masters()}
    for rows in (found["info"]["queues"], found["queues"], found["top"]):
        seen = {row["queue"]: (row["queued"], row["scheduled"], bool(row["paused"])) for row in rows}
        assert seen == {name: (1, 1, name == two) for name in queues}
    assert {job["id"] for job in found["jobs list"]} == {
        f"{name}-{when}" for name in queues for when in ("now", "later")
    }
    assert (found["workers"], found["dlq list"]) == ([], [])
    said = " ".join(finding["says"] for finding in found["doctor"])
    for name in queues:
        assert f"{name}: 1 job, and no live worker" in said
    assert len([finding for finding in found["doctor"] if finding["check"] == "memory"]) >= len(queues)
    assert "No live worker" in found[one]
    assert "paused" in found[two]
    for name in queues:
        for when in ("now", "later"):
            await app.job(f"{name}-{when}", queue=name).cancel()
        await app.queue(name).resume()


def ended(process: subprocess.Popen[str]) -> Any:
    """What it printed, as data if it is."""
    out, err = process.communicate(timeout=30)
    assert process.returncode in (0, 1), err
    return json.loads(out) if out.startswith(("[", "{")) else out


Make = Callable[[str, str], Command]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Make]:
    """`streamq worker` in two processes, on all queues that are named."""
    started: list[Command] = []
    write_jobs(tmp_path)

    def run(url: str, namespace: str, *queues: str) -> Command:
        words = ("shop:app", "-p", "2", "-Q", ",".join(queues))
        started.append(Command(tmp_path, environment(tmp_path, url, namespace), words))
        return started[-1]

    yield run
    for command in started:
        command.kill()


@pytest.mark.parametrize("place", ["cluster", "watched"])
async def test_two_processes_work_for_all_queues(
    request: pytest.FixtureRequest, place: str, cluster: ClusterSet, queues: list[str], namespace: str, worker: Make
) -> None:
    url = request.getfixturevalue(place).url
    command = worker(url, namespace, *queues)
    async with StreamQ(url, namespace=namespace, lease="1s") as app:
        await command.says(READY)
        jobs = [await app.send_task("brief", (number,), queue=name) for name in queues for number in range(10)]
        assert await gather(*jobs, timeout=20) == [*range(10)] * 3
        pids = [await app.send_task("pid", queue=name) for name in queues for _ in range(10)]
        assert set(await gather(*pids, timeout=20)) <= set(command.children)
        command.process.terminate()
        assert await command.ended() == 0
        assert "Traceback" not in command.said
        for name in queues:
            assert await app.queue(name).workers() == []


async def test_the_users_that_acl_prints_for_a_cluster(cluster: ClusterSet, queues: list[str], namespace: str) -> None:
    mine, other, _ = queues
    for role in ("producer", "worker"):
        user = f"{role}-{namespace}"
        words = f"--role {role} --queue {mine} --namespace {namespace} --cluster --user {user}".split()
        typed = CliRunner().invoke(acl, words)
        assert typed.exit_code == 0, typed.output
        cluster.broadcast(*typed.output.replace("PASSWORD", "pw").split())
    producing = StreamQ(cluster.url_of(f"producer-{namespace}", "pw"), namespace=namespace, lease="1s")
    working = StreamQ(cluster.url_of(f"worker-{namespace}", "pw"), namespace=namespace, lease="1s")

    @working.task(name="add", queue=mine)
    async def add(one: int, two: int) -> int:
        return one + two

    async with producing, working, working.worker(queues=[mine]):
        job = await producing.send_task("add", (1, 2), queue=mine)
        assert await job.result(timeout=10) == 3
        with pytest.raises(BrokerError, match="permission"):
            await producing.send_task("add", (1, 2), queue=other)
