"""`streamq bench`: its figures agree, its rule is as documented, bad starts are one screen, nothing is left."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
import redis
from click.testing import CliRunner

from streamq import __version__
from streamq.broker.embedded import EmbeddedServer
from streamq.cli.bench.command import SCENARIOS, bench
from streamq.cli.bench.figures import Sample, Spread, Surroundings, bound, figures, reason

from .conftest import PROJECT, Start
from .test_entrance import HEAVY

FEW = ("bench", "--jobs", "200", "--runs", "1")
ENDLESS = ("bench", "--jobs", "10000000", "--runs", "1000", "--scenario")
SVG = "{http://www.w3.org/2000/svg}"

Keys = Callable[[], list[str]]


@pytest.fixture
def own() -> Iterator[EmbeddedServer]:
    """A server that may be filled, set and stopped."""
    with EmbeddedServer.start() as server:
        yield server


def keys(url: str) -> list[str]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return sorted(cast(Iterator[str], client.scan_iter("sq:{streamq-bench-*", count=1000)))


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Its child processes; of an embedded server, that is one too."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for each in children for pid in each.read_text().split()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- what it finds -------------------------------------------------------------------------------------------


def test_for_programs_there_is_one_object_a_scenario(start: Start, url: str, tmp_path: Path) -> None:
    options = ("--json", "--plot", "chart.svg")
    process = start(*FEW, *options, STREAMQ_URL=url, STREAMQ_LEASE="nonsense", STREAMQ_NAMESPACE="mine")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    assert [each["scenario"] for each in found] == list(SCENARIOS)
    for each in found:
        assert_consistent(each)
    assert [each["environment"]["streamq"] for each in found] == [__version__] * 4
    assert {each["environment"]["embedded"] for each in found} == {False}
    assert "about 0.1 MB at a time, in the namespace streamq-bench-" in err
    assert "drain 1 of 1: " in err
    assert keys(url) == []
    tree = ElementTree.parse(tmp_path / "chart.svg")
    assert len(tree.findall(f"{SVG}circle")) == len(SCENARIOS) + 1  # of one run; the round trip has two rows


def assert_consistent(found: dict[str, Any]) -> None:
    figure: dict[str, dict[str, Any]] = found["figures"]
    for spread in figure.values():
        assert spread["lowest"] == spread["median"] == spread["highest"] == spread["runs"][0]
        assert spread["lowest"] >= 0
    median = {name: spread["median"] for name, spread in figure.items()}
    assert median["jobs"] == 200
    assert median["jobs_per_second"] == pytest.approx(median["jobs"] / median["seconds"])
    processes = {"producer", "server"} | ({"worker"} if found["scenario"] in ("drain", "round-trip") else set())
    assert {name.removesuffix("_cpu_us") for name in median if name.endswith("_cpu_us")} == processes
    for name in processes:
        assert median[f"{name}_cpu_us"] > 0
    assert ("p50_ms" in median) is (found["scenario"] == "round-trip")
    if "p50_ms" in median:
        assert 0 < found["environment"]["ping_ms"] < median["p50_ms"] <= median["p99_ms"]
    assert found["bound"] == bound(median)


def test_for_people_on_the_embedded_server(start: Start, tmp_path: Path) -> None:
    process = start("bench", "--jobs", "100", "--runs", "2", "--scenario", "bulk", "--scenario", "enqueue")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = [line.split() for line in out.splitlines() if "jobs/s" in line]
    assert [row[0] for row in rows] == ["enqueue", "bulk"]
    assert [line.partition(" bound by: ")[0].strip() for line in out.splitlines() if " bound by: " in line] == [
        "enqueue",
        "bulk",
    ]
    assert "Runs of less than 0.2 s say little" in out
    assert out.endswith("not for published figures: give --url or set STREAMQ_URL.\n")
    assert "not for published figures" in err
    assert "\x1b[" not in out + err


def test_a_server_that_does_not_tell_its_cpu(start: Start, own: EmbeddedServer) -> None:
    with redis.Redis.from_url(own.url) as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", ">pw", "~sq:*", "&*", "+@all", "-info")
    url = own.url.replace("unix://", "unix://shy:pw@")
    process = start("bench", "--jobs", "100", "--runs", "1", "--scenario", "bulk", "--url", url)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "The server does not tell its CPU time" in out
    assert "pw" not in out + err


def test_on_a_terminal_there_is_a_bar_with_the_rate(own: EmbeddedServer, tmp_path: Path) -> None:
    here, there = pty.openpty()
    command = [sys.executable, "-m", "streamq", "bench", "--url", own.url, "--jobs", "20000", "--runs", "1"]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(
        [*command, "--scenario", "bulk"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=there
    )
    os.close(there)
    shown = b""
    while data := read(here):
        shown += data
    out, _ = process.communicate(timeout=20)
    os.close(here)
    assert process.returncode == 0
    assert b"%" in shown
    assert b"bulk 1 of 1, " in shown
    assert b" jobs/s" in shown
    assert b"\x1b" not in out


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that nobody has the other end any more
        return b""


def test_its_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from streamq.cli.main import main\n"
        "sys.argv = ['streamq', 'bench', '--help']\n"
        "try:\n    main()\n"
        f"except SystemExit:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=20)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for name in SCENARIOS)


# ---- the rule ------------------------------------------------------------------------------------------------

CALM = {"producer_share": 0.3, "worker_share": 0.4, "server_share": 0.2, "network_share": 0.1, "machine_share": 0.5}
BOUNDS = [
    ({"worker_share": 0.86}, "worker CPU"),
    ({"worker_share": 0.9, "server_share": 0.95}, "server CPU"),
    ({"producer_share": 0.9, "network_share": 0.9, "machine_share": 1.0}, "producer CPU"),
    ({"network_share": 0.5, "machine_share": 1.0}, "network"),
    ({"machine_share": 0.86}, "the machine"),
    ({"worker_share": 0.85, "network_share": 0.49, "machine_share": 0.85}, "waiting"),
]


@pytest.mark.parametrize(("shares", "expected"), BOUNDS)
def test_what_bounds_it(shares: dict[str, float], expected: str) -> None:
    assert bound(CALM | shares) == expected


def test_a_silent_server_may_be_what_bounds_it() -> None:
    silent = {name: share for name, share in CALM.items() if name != "server_share"}
    assert bound(silent) == "unknown"
    assert reason(silent) == "producer 30%, worker 40%, network 10%, machine 50%"


def test_the_figures_of_a_run() -> None:
    seen = Sample(1000, 0.5, {"producer": 0.1, "worker": 0.4, "server": 0.3}, 0.25, 0.6, [1.0, 2.0, 9.0])
    found = figures(seen, 1 / 10, Surroundings(2.0, 4, frozenset({"producer", "worker"})))
    assert found == {
        "jobs": 1000,
        "seconds": 0.5,
        "jobs_per_second": 2000,
        "p50_ms": 2.0,
        "p99_ms": 9.0,
        "producer_cpu_us": pytest.approx(100),
        "worker_cpu_us": pytest.approx(400),
        "server_cpu_us": pytest.approx(300),
        "producer_share": pytest.approx(0.2),
        "worker_share": pytest.approx(0.8),
        "server_share": pytest.approx(0.5),  # of the thread that runs commands
        "network_share": pytest.approx(0.4),  # 1,000 jobs, ten under way: 100 times 2 ms
        "machine_share": pytest.approx(0.3),  # 0.6 of 4 x 0.5 s
        "others_share": pytest.approx(0.05),  # 0.1 of that: the server is elsewhere
    }


def test_a_spread_has_every_run() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, [3.0, 1.0, 2.0])


# ---- bad starts ----------------------------------------------------------------------------------------------


def test_with_redis_down_it_is_one_screen(start: Start) -> None:
    process = start("bench", "--url", "redis://localhost:1/0")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert err == (
        "streamq: cannot reach Redis: the connection was refused\n\n"
        "  where  redis://localhost:1/0\n"
        "  cause  Is Redis running there? Start it (redis-server), or use embedded://\n"
        "  type   redis-server    starts one; streamq demo runs without a server of your own\n"
    )


def test_a_url_that_cannot_be_used(start: Start) -> None:
    process = start("bench", "--url", "http://here")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("streamq: cannot use the broker URL 'http://here': its scheme must be one of redis://")
    assert len(err.splitlines()) == 1


WRONG = [
    (("--scenario", "drian"), "'drian' is not one of 'enqueue', 'bulk', 'drain', 'round-trip'."),
    (("--jobs", "0"), "0 is not in the range x>=1."),
    (("--plot", "no/where.svg"), "'no/where.svg' cannot be written."),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[each[0][0] for each in WRONG])
def test_a_wrong_option_is_said_before_anything_runs(words: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(bench, words)
    assert ended.exit_code == 2
    name = words[0].removeprefix("--").upper()
    assert ended.stderr.endswith(f"Error: Invalid value for '{words[0]}' (env var: 'STREAMQ_BENCH_{name}'): {said}\n")


UNSUITABLE = [
    (
        {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"},
        "would drop jobs when its memory is full: maxmemory-policy is allkeys-lru",
    ),
    ({"maxmemory": "20mb"}, "and the jobs take about 30.0 MB\n\n  where  unix://"),
]


@pytest.mark.parametrize(("settings", "said"), UNSUITABLE, ids=["evicts", "small"])
def test_an_unsuitable_server_is_refused(
    start: Start, own: EmbeddedServer, settings: dict[str, str], said: str
) -> None:
    with redis.Redis.from_url(own.url) as client:
        for name, value in settings.items():
            client.config_set(name, value)
    process = start("bench", "--jobs", "100000", "--url", own.url)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (5, "")
    assert said in err


def test_a_user_who_may_not_delete_is_refused_before_anything_is_made(start: Start, own: EmbeddedServer) -> None:
    with redis.Redis.from_url(own.url) as client:
        client.execute_command("ACL", "SETUSER", "careful", "on", ">pw", "~*", "&*", "+@all", "-unlink")
    process = start("bench", "--url", own.url.replace("unix://", "unix://careful:pw@"))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the user lacks a permission" in err
    assert keys(own.url) == []


# ---- nothing is left -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["bulk", "round-trip"])
def test_a_signal_leaves_nothing_behind(start: Start, own: EmbeddedServer, scenario: str) -> None:
    process = start(*ENDLESS, scenario, "--url", own.url)
    until(lambda: any(":s:" in key for key in keys(own.url)))
    pids = workers(process)
    for _ in range(2):  # an impatient user
        process.send_signal(signal.SIGTERM if scenario == "bulk" else signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert out == ""
    assert "Stopped. Nothing is left on the server." in err
    assert "Traceback" not in err
    assert len(pids) == (scenario == "round-trip")
    assert [pid for pid in pids if alive(pid)] == []
    assert keys(own.url) == []


def test_a_worker_that_dies_is_reported(start: Start, own: EmbeddedServer) -> None:
    process = start(*ENDLESS, "round-trip", "--url", own.url)
    until(lambda: any(":r:" in key for key in keys(own.url)))
    (pid,) = workers(process)
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.endswith("streamq: the worker ended with code -9\n")
    assert keys(own.url) == []


def test_when_redis_goes_away_it_says_how_to_clean_up(start: Start, own: EmbeddedServer) -> None:
    process = start(*ENDLESS, "enqueue", "--url", own.url)
    until(lambda: keys(own.url))
    own.stop()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "streamq: the keys of this benchmark could not be deleted\n" in err
    socket = own.url.removeprefix("unix://")
    assert f"redis-cli -s {socket} --scan --pattern 'sq:{{streamq-bench-" in err
    assert "Traceback" not in err


def test_its_worker_dies_with_it(start: Start, own: EmbeddedServer) -> None:
    process = start(*ENDLESS, "round-trip", "--url", own.url)
    until(lambda: any(":r:" in key for key in keys(own.url)))
    (pid,) = workers(process)
    process.kill()
    until(lambda: not alive(pid))
