"""The judge of `python -m benchmarks chaos`, which sees other queues from outside, and the table of what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.chaos.drive import Result, judged, settings_of
from benchmarks.chaos.peers import NAMES
from benchmarks.chaos.report import added_up, main
from benchmarks.environments import Contender
from streamq.cli.chaos.compare import Comparison, recorded, shown
from streamq.cli.trial.ledger import ACKED, END, FAULT, INTENT, START, Entry

S = 1_000_000_000


def entry(event: str, key: str, at: float, pid: int = 1) -> Entry:
    return Entry(event, key, key, 0, int(at * S), pid)


def test_lost_ended_twice_and_started_again() -> None:
    entries = [
        *(entry(event, key, 0) for key in ("good", "lost", "twice", "again") for event in (INTENT, ACKED)),
        entry(INTENT, "unanswered", 0),
        *(entry(START, key, 1) for key in ("good", "lost", "twice", "again")),
        entry(END, "good", 2),
        entry(END, "twice", 2),
        entry(FAULT, "kill-1", 3),
        entry(START, "again", 4.5, 2),
        entry(END, "again", 5, 2),
        entry(START, "twice", 4, 2),
        entry(END, "twice", 5, 2),
    ]
    found = judged("streamq", 7, 60.0, {"kill": 1}, entries[::-1])
    assert (found.acknowledged, found.lost, found.lost_jobs) == (4, 1, ["lost"])
    assert (found.ended_twice, found.started_again) == (1, 2)
    assert (found.recovered, found.recovery_p50, found.recovery_max) == (1, 1.5, 1.5)


def lines(**plan: float) -> list[dict[str, Any]]:
    """A file of two seeds."""
    given = {"seconds": 120.0, "workers": 3, "concurrency": 16, "lease": 1.0, "rate": 200.0, "waited": 13.0, **plan}
    environment = {
        "date": "2026-11-22T03:00:00+00:00",
        "python": "3.11.7",
        "machine": "Linux x86_64, Xeon",
        "cores": 2,
        "server": "redis-server 7.0.15",
        "versions": {name: {name: "1.2.3", "uvloop": "0.23"} for name in NAMES},
        "settings": {name: f"{name} as it should be" for name in NAMES},
        "plan": given,
    }
    faults = {"kill": 5, "kill in shutdown": 2, "stop": 3, "restart": 1}
    return [
        {"environment": environment},
        *(
            msgspec.to_builtins(Result(name, seed, 120.0, faults, 1000, seed, 2, 3, 4, 1.0, 2.0))
            for seed in (1, 2)
            for name in NAMES
        ),
    ]


def written(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return path


def test_the_runs_are_added_up_and_shown(tmp_path: Path) -> None:
    page, data = tmp_path / "page.md", tmp_path / "data.json"
    page.write_text("before\n<!-- chaos -->\nold\n<!-- /chaos -->\nafter\n")
    main([written(tmp_path / "a.jsonl", lines())], page, data)
    text = page.read_text()
    assert text.startswith("before\n<!-- chaos -->\n\n| | kills | stops |")
    assert text.endswith("<!-- /chaos -->\nafter\n")
    assert "old" not in text
    assert "| streaQ | 14 | 6 | 2 | 2,000 | 3 | 4 | 6 | median 1.00 s, at most 2.00 s |" in text
    found = recorded(data)
    assert [(each.name, each.runs, each.kills, each.lost) for each in found.systems] == [
        ("streamq", 2, 14, 3),
        ("streaQ", 2, 14, 3),
        ("taskiq-redis, stream broker", 2, 14, 3),
    ]
    assert found.seeds == [1, 2]
    assert "uvloop" not in shown(found)
    assert "streaQ: streaq 1.2.3. streaq as it should be" in shown(found)


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a.jsonl", lines()), written(tmp_path / "b.jsonl", lines(lease=2.0))
    with pytest.raises(ValueError, match="different versions, plans or machines"):
        added_up([one, other])
    failed = written(tmp_path / "c.jsonl", [*lines(), {"name": "streaq", "seed": 3, "error": "it did not start"}])
    with pytest.raises(ValueError, match="streaq failed under seed 3: it did not start"):
        added_up([failed])
    with pytest.raises(ValueError, match="no environment"):
        added_up([written(tmp_path / "d.jsonl", [])])


@pytest.mark.parametrize("name", NAMES)
def test_each_peer_says_how_it_is_set_up_and_is_pinned(name: str) -> None:
    assert settings_of(name)
    assert all("==" in each for each in Contender.read(name).requires)


def test_what_is_shipped_is_of_all_of_them() -> None:
    found = recorded()
    assert isinstance(found, Comparison)
    assert len(found.systems) == len(NAMES)
    assert len({each.runs for each in found.systems}) == 1
