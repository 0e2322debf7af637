"""The files of examples/deploy are in order: they parse, their commands exist, and Redis starts with its one."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamq import StreamQ
from streamq.broker.checkup import Severity, examine
from streamq.broker.facts import gather
from streamq.core.clock import seconds
from streamq.core.options import AppOptions
from streamq.worker.supervisor import MARGIN
from tests.conftest import PROGRAMS
from tests.docs.command_lines import wrong

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
SERVICE = DEPLOY / "streamq-worker.service"
WAIT = 10.0  # seconds; only a failing test ever waits that long


SUPERVISORD = DEPLOY / "supervisord.conf"


def sections(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def service() -> dict[str, str]:
    return sections(SERVICE)["Service"]


def program() -> dict[str, str]:
    return sections(SUPERVISORD)["program:streamq-worker"]


def compose() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def kubernetes() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def pod() -> dict[str, Any]:
    return cast("dict[str, Any]", kubernetes()["Deployment"]["spec"]["template"]["spec"])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words: every program that the files start."""
    for name, value in service().items():
        if name.startswith("Exec"):
            yield f"{SERVICE.name}: {name}", shlex.split(value)
    yield f"{SUPERVISORD.name}: command", shlex.split(program()["command"])
    for name, each in compose()["services"].items():
        yield f"compose.yaml: {name}", each["command"]
    for container in pod()["containers"]:
        yield f"kubernetes.yaml: {container['name']}", [*container["command"], *container["args"]]
    for found in re.finditer(r"CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        yield "Dockerfile", json.loads(found[1])


COMMANDS = [(place, words[1:]) for place, words in commands() if Path(words[0]).name == "streamq"]


def test_there_are_commands() -> None:
    places = {place.partition(":")[0] for place, _ in COMMANDS}
    assert places == {SERVICE.name, SUPERVISORD.name, "compose.yaml", "kubernetes.yaml", "Dockerfile"}


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{place} {words[0]}" for place, words in COMMANDS])
def test_a_command_is_one_that_streamq_takes(place: str, words: list[str]) -> None:
    assert wrong(words) is None


def test_whoever_stops_a_worker_waits_longer_than_its_grace() -> None:
    needed = AppOptions().grace + MARGIN
    assert seconds(service()["TimeoutStopSec"]) > needed
    assert seconds(program()["stopwaitsecs"]) > needed
    assert seconds(compose()["services"]["worker"]["stop_grace_period"]) > needed
    assert pod()["terminationGracePeriodSeconds"] > needed


def test_the_probes_ask_the_port_that_the_worker_serves() -> None:
    (container,) = pod()["containers"]
    given = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert given["--health-host"] == "0.0.0.0", "the probes come from outside of the pod"
    port = int(given["--health-port"])
    assert [each["containerPort"] for each in container["ports"]] == [port]
    assert {kind: container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")} == {
        "livenessProbe": {"path": "/livez", "port": "health"},
        "readinessProbe": {"path": "/readyz", "port": "health"},
    }


def test_labels_agree() -> None:
    found = kubernetes()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    secret = pod()["containers"][0]["envFrom"][0]["secretRef"]["name"]
    assert found["Secret"]["metadata"]["name"] == secret


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    # Only what is on this machine too can be verified: its programs, users and folders stand in for those of the shop.
    text = SERVICE.read_text().replace("/srv/shop/.venv/bin/streamq", sys.executable)
    text = text.replace("/srv/shop", str(tmp_path)).replace("User=shop", "User=root")
    here = tmp_path / SERVICE.name
    here.write_text(text.replace("/etc/shop/streamq.env", "-/etc/shop/streamq.env"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(here)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if SERVICE.name in line]) == (0, [])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_notices_a_mistake(tmp_path: Path) -> None:
    wrong_unit = tmp_path / "wrong.service"
    wrong_unit.write_text(f"[Service]\nType=notify\nExecStart={sys.executable}\nTimeoutStopSeconds=45\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(wrong_unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "TimeoutStopSeconds" in done.stderr


# ---- redis.conf -------------------------------------------------------------------------------------------


@pytest.fixture(params=PROGRAMS)
def socket_of_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A server with the file as it is; only where it listens and writes belongs to the test."""
    path = tmp_path / "s"
    process = subprocess.Popen(
        [PROGRAMS[request.param], DEPLOY / "redis.conf", "--port", "0", "--unixsocket", path, "--dir", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + WAIT
        while not path.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
    finally:
        process.terminate()
        process.communicate(timeout=WAIT)


def password() -> str:
    (said,) = re.findall(r"^user shop on >(\S+)", (DEPLOY / "redis.conf").read_text(), re.MULTILINE)
    assert f"shop:{said}@" in compose()["services"]["worker"]["environment"]["STREAMQ_URL"]
    return str(said)


async def test_jobs_run_on_a_redis_with_this_file(socket_of_redis: Path) -> None:
    app = StreamQ(f"unix://shop:{password()}@{socket_of_redis}", namespace="shop")

    @app.task(name="shop.add", max_retries=1, autoretry_for=(OSError,), default_retry_delay=0.01)
    async def add(x: int, y: int) -> int:
        if x < 0:
            raise OSError("again")
        return x + y

    async with app, app.worker():
        later = await add.using(countdown=0.05, idempotency_key="k").enqueue(2, 3)
        assert await later.result(timeout=WAIT) == 5
        jobs = await app.enqueue_many(add.s(i, i) for i in range(100))
        assert [await job.result(timeout=WAIT) for job in jobs] == [2 * i for i in range(100)]
        failed = await add.enqueue(-1, 0)
        assert isinstance(await failed.result(timeout=WAIT, raises=False), Exception)
        assert await app.dead_letters().discard() == 1
        assert await (await add.using(countdown=60).enqueue(1, 1)).cancel() == "cancelled"
        assert (await app.queue().info()).workers == 1
        found = examine(await gather(app.broker))
        assert [each for each in found if each.severity not in (Severity.OK, Severity.NOTE)] == []


def test_the_user_may_do_no_more_than_jobs_need(socket_of_redis: Path) -> None:
    def client(**who: str) -> redis.Redis:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=str(socket_of_redis), retry=once, **who)  # type: ignore[arg-type]

    with client() as nobody, pytest.raises(redis.AuthenticationError):
        nobody.ping()
    with client(username="shop", password=password()) as shop:
        assert shop.info("memory")["maxmemory_policy"] == "noeviction"
        assert shop.info("persistence")["aof_enabled"] == 1
        for refused in (
            lambda: shop.flushall(),
            lambda: shop.keys("*"),
            lambda: shop.config_set("maxmemory-policy", "allkeys-lru"),
            lambda: shop.set("elsewhere", "1"),
            lambda: shop.publish("elsewhere", "1"),
            lambda: shop.acl_list(),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
