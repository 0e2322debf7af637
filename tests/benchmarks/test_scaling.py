"""The tables of docs/scaling.md: right, complete with "-" where nothing was measured, and nothing else is touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import redis
from redis.crc import key_slot

from benchmarks.report import main
from benchmarks.scaling import BEGIN, END
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.cluster import _joined, _masters, namespace_in
from benchmarks.stage import Stage
from streamq.broker.keys import Keys, queues
from tests.benchmarks.sessions import Line, Write, environment, row, rows, run

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TEXT = f"# Scaling\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter: 100 %.\n"


def figures(scenario: str, **values: float) -> list[Line]:
    return [{"scenario": scenario, "contender": "streamq", "run": 0, "jobs": 1, "figures": values}]


def everything() -> list[Line]:
    return [
        environment(),
        *figures("drain_100", server_cpu_us=12.5, worker_cpu_us=20),
        *figures("end_to_end", server_cpu_us=20),
        *figures("alone", server_cpu_us=250, server_commands=25),
        *figures("idle", commands_per_second=0.8, rss_mib=40),
        *figures("memory", bytes_queued=200, bytes_finished=250),
        *figures("cluster_1", per_second=4_000, server_busy=1.0),
        *figures("cluster_2", per_second=7_800, server_busy=0.99),
        *figures("cluster_3", per_second=11_600, server_busy=0.98),
        *run("workers_1", "streamq", 30_000, 20_000, 40_000),
        *run("workers_1", "saq", 1),
        *run("workers_cpu_4", "streamq", 9_000),
        *figures("queues_16", per_second=3_000, server_commands=9.9),
    ]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """As it lies beside the results."""
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs" / "scaling.md"
    path.write_text(TEXT)
    return path


def filled(page: Path, write: Write, *sessions: Sequence[Line]) -> str:
    main([write(each) for each in sessions], page.parents[1] / "benchmarks")
    return page.read_text()


def test_what_a_server_and_its_workers_carry(page: Path, write: Write) -> None:
    text = filled(page, write, everything())
    assert "Measured on 2026-11-22: Linux x86_64, Xeon, 2 cores, redis-server 7.0.15." in text
    assert row(text, "worked on, in full")[1:] == ["12.5 us", "80,000/s", "56,000/s"]
    assert row(text, "enqueued and worked on, under")[1:] == ["20.0 us", "50,000/s", "35,000/s"]
    assert row(text, "enqueued and worked on, each")[1:] == ["250 us", "4,000/s", "2,800/s"]
    assert row(text, "none (a no-op)")[1:] == ["50,000/s", "1", "2,800/s to 35,000/s"]
    assert row(text, "10 ms")[1:] == ["99.8/s", "29 to 351", "2,800/s to 9,980/s"]
    assert row(text, "100 ms")[1:] == ["10.0/s", "281 to 3,501", "1,000/s"]


def test_what_is_measured_of_workers_queues_and_memory(page: Path, write: Write) -> None:
    text = filled(page, write, everything())
    assert row(text, "server commands a second")[1:] == ["0.800", "80.0"]
    assert row(text, "of one core of the server")[1:] == ["0.000800 %", "0.0800 %"]  # 10 us a command
    assert row(text, "memory of the workers")[1:] == ["0.0419 GB", "4.19 GB"]
    assert row(text, "queued |")[1:] == ["200", "5,000,000", "0.720 GB"]
    assert row(text, "finished |")[1:] == ["250", "4,000,000", "0.900 GB"]
    first, second = rows(text, "no-op jobs/s")
    assert first[1:] == ["30,000", "-", "-", "-"]  # the median, of streamq
    assert second[1:] == ["-", "-", "3,000"]
    assert row(text, "jobs/s of 100 us")[1:] == ["-", "-", "-", "9,000"]
    assert row(text, "server commands a job")[1:] == ["-", "-", "9.90"]


def test_ratios_of_shards_are_of_one_session(page: Path, write: Write) -> None:
    text = filled(page, write, everything())
    assert row(text, "1 | 4,000/s")[2:] == ["1.00 x", "1.00", "35,000/s"]
    assert row(text, "3 | 11,600/s")[2:] == ["2.90 x", "0.980", "102,000/s"]
    slow = [environment(), *figures("cluster_1", per_second=1_000), *figures("cluster_3", per_second=2_500)]
    assert row(filled(page, write, everything(), slow), "3 | 7,050/s")[2] == "2.70 x"


def test_nothing_else_is_touched_and_nothing_piles_up(page: Path, write: Write) -> None:
    once = filled(page, write, everything())
    assert filled(page, write, everything()) == once
    assert once.startswith(f"# Scaling\n\nBefore.\n\n{BEGIN}\nMeasured")
    assert once.endswith(f" |\n\n{END}\n\nAfter: 100 %.\n")
    assert "\nold\n" not in once


def measured(text: str) -> list[str]:
    """Every cell with a figure that is not a head of its row or column."""
    lines = text.partition(BEGIN)[2].splitlines()
    body = [each for each, after in pairwise(lines) if each[:1] == "|" and "---" not in each + after]
    return [cell.strip() for each in body for cell in each.strip("|").split("|")[1:]]


@pytest.mark.parametrize("given", [[], [environment()], [environment(quick=True), *figures("alone", server_cpu_us=0)]])
def test_what_is_not_measured_is_said(page: Path, write: Write, given: list[Line]) -> None:
    text = filled(page, write, given)
    assert set(measured(text)) == {"-"}
    assert ("a quick look" in text) is (len(given) > 1)


@pytest.mark.parametrize("missing", range(1, len(everything())))
def test_any_figure_may_be_missing(page: Path, write: Write, missing: int) -> None:
    lines = everything()
    del lines[missing]
    cells = measured(filled(page, write, lines))
    assert "-" in cells
    assert not any("nan" in cell for cell in cells)


@pytest.mark.parametrize(("text", "lacks"), [("nothing", BEGIN), (f"{BEGIN} only", END), (f"{END} {BEGIN}", END)])
def test_a_page_without_its_marks(page: Path, write: Write, text: str, lacks: str) -> None:
    page.write_text(text)
    with pytest.raises(ValueError, match=f"scaling.md lacks {lacks}"):
        filled(page, write, everything())
    assert page.read_text() == text


def test_the_page_is_where_the_report_looks_for_it() -> None:
    assert PAGE.read_text().count(BEGIN) == PAGE.read_text().count(END) == 1


def test_a_report_elsewhere_makes_no_page(write: Write, tmp_path: Path) -> None:
    main([write(everything())], tmp_path / "out")
    assert not (tmp_path / "docs").exists()


def test_what_the_page_shows_is_measured() -> None:
    shown = {line["scenario"] for line in everything() if "scenario" in line}
    assert shown <= set(SCENARIOS)


@pytest.mark.parametrize("slots", [range(16_384), range(5_461), range(5_461, 10_922), range(10_922, 16_384)])
def test_all_keys_of_a_shard_are_in_its_slots(slots: range) -> None:
    namespace = namespace_in(slots)
    keys = Keys(namespace, "default")
    names = [
        queues(namespace),
        keys.stream(9),
        keys.ring("client", 1),
        *(getattr(keys, name) for name in Keys.__slots__),
    ]
    assert {key_slot(name.encode()) in slots for name in names} == {True}


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server on PATH")
def test_each_shard_of_a_cluster_takes_the_keys_of_its_namespace(tmp_path: Path) -> None:
    """All keys, and no other shard takes one."""
    with ExitStack() as processes:
        stage = cast(Stage, SimpleNamespace(folder=tmp_path, env={}, processes=processes))
        masters = _masters(stage, 3)
        slots = _joined(masters)
        assert [slot for each in slots for slot in each] == list(range(16_384))
        for index, (master, own) in enumerate(zip(masters, slots, strict=True)):
            namespace = namespace_in(own)
            names = [queues(namespace), *(getattr(Keys(namespace, "default"), name) for name in Keys.__slots__)]
            for name in names:
                assert key_slot(name.encode()) in own
                assert master.ask("EXISTS", name) == 0
            with pytest.raises(redis.exceptions.MovedError):
                masters[index - 1].ask("EXISTS", names[0])
