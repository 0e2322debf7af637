"""The numbers of the demo: a true ledger is praised, a doctored one is found out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from streamq.cli.demo.load import load
from streamq.cli.demo.report import as_object, summary
from streamq.cli.demo.tally import Seen, tally
from streamq.cli.trial.judge import Evidence
from streamq.cli.trial.ledger import ACKED, END, FAIL, FAULT, INTENT, START, Entry, Ledger, Reader, parsed
from streamq.core.job import State

PARENT, ALICE, BOB, VICTIM = 1, 2, 3, 4
MS = 1_000_000


def calls(key: str, job_id: str, at: int = 0) -> list[Entry]:
    return [Entry(INTENT, key, "-", 0, at, PARENT), Entry(ACKED, key, job_id, 0, at + 1, PARENT)]


def run(event: str, key: str, job_id: str, pid: int = ALICE, attempt: int = 1, at: int = 10 * MS) -> Entry:
    return Entry(event, key, job_id, attempt, at, pid)


def honest() -> Seen:
    """One job of each kind, one of them cut off by a kill."""
    entries = [
        *calls("burst-0", "b0"), run(START, "burst-0", "b0"), run(END, "burst-0", "b0", at=20 * MS),
        *calls("burst-1", "b1"), run(START, "burst-1", "b1"), run(END, "burst-1", "b1", at=40 * MS),
        *calls("slow-0", "s0"), run(START, "slow-0", "s0", VICTIM),
        Entry(FAULT, f"kill-{VICTIM}", "-", 0, 10 * MS, PARENT),
        run(START, "slow-0", "s0", BOB, 2), run(END, "slow-0", "s0", BOB, 2),
        *calls("flaky-0", "f0"), run(START, "flaky-0", "f0", VICTIM), run(FAIL, "flaky-0", "f0", VICTIM),
        run(START, "flaky-0", "f0", BOB, 2), run(END, "flaky-0", "f0", BOB, 2),
        *calls("doomed-0", "d0"), run(START, "doomed-0", "d0"), run(FAIL, "doomed-0", "d0"),
        *calls("pair-0", "p0"), *calls("pair-0", "p0"), run(START, "pair-0", "p0"), run(END, "pair-0", "p0"),
        *calls("delayed-0", "w0"), run(START, "delayed-0", "w0"), run(END, "delayed-0", "w0"),
        *calls("probe-0", "x0", 5 * MS), run(START, "probe-0", "x0", at=7 * MS), run(END, "probe-0", "x0"),
        run(START, "cron-1", "cron-tick-1"), run(END, "cron-1", "cron-tick-1"),
    ]  # fmt: skip
    jobs = ("b0", "b1", "s0", "p0", "w0", "x0", "f0", "d0", "cron-tick-1")
    seen = Evidence(
        entries,
        {job_id: State.FAILURE if job_id == "d0" else State.SUCCESS for job_id in jobs},
        ends=Counter(jobs),
        lost=Counter(["s0"]),
        returned=Counter(["f0"]),
        retries=Counter(["f0", "d0"]),
    )
    return Seen(seen, {VICTIM}, {"delayed-0": 9 * MS}, {"d0"}, seconds=1.0)


def test_an_honest_ledger() -> None:
    found = tally(honest())
    assert found.ok
    assert (found.enqueued, found.deduplicated, found.done, found.failed_as_intended) == (9, 1, 7, 1)
    assert (found.retried, found.recovered, found.ran_again, found.cron_fired) == (2, 1, 0, 1)
    assert (found.lost, found.completed_twice) == (0, 0)
    assert found.throughput == 50.0
    assert found.latency is not None
    assert (found.latency.jobs, found.latency.p50, found.latency.p99) == (1, 2.0, 2.0)


def test_a_kill_between_the_end_and_its_record_explains_a_second_end() -> None:
    seen = honest()
    seen.evidence.entries.append(run(END, "slow-0", "s0", VICTIM))
    found = tally(seen)
    assert found.ok
    assert (found.recovered, found.ran_again, found.completed_twice) == (1, 1, 0)


def _recorded_twice(seen: Seen) -> None:
    seen.evidence.ends["b0"] += 1


def _ended_late(seen: Seen) -> None:
    seen.evidence.stale.append("b0")


def _left_behind(seen: Seen) -> None:
    seen.evidence.left.append("sq:{demo/demo}:side")


def _ended_twice(seen: Seen) -> None:
    seen.evidence.entries += [run(START, "burst-0", "b0", BOB, 2), run(END, "burst-0", "b0", BOB, 2)]


def _nobody_s(seen: Seen) -> None:
    seen.evidence.entries.append(run(START, "burst-9", "z0"))


def _cron_twice(seen: Seen) -> None:
    seen.evidence.entries += [run(START, "cron-1", "cron-tick-1", BOB), run(END, "cron-1", "cron-tick-1", BOB)]


def _lost(seen: Seen) -> None:
    del seen.evidence.states["b0"]


def _left_running(seen: Seen) -> None:
    seen.evidence.states["b0"] = State.STARTED


def _failed(seen: Seen) -> None:
    seen.evidence.states["b0"] = State.FAILURE


def _never_ran(seen: Seen) -> None:
    seen.evidence.entries = [each for each in seen.evidence.entries if each.job_id != "b0" or each.event == ACKED]


def _pair_of_two(seen: Seen) -> None:
    seen.evidence.entries += [*calls("pair-0", "p1"), run(START, "pair-0", "p1"), run(END, "pair-0", "p1")]
    seen.evidence.states["p1"] = State.SUCCESS


def _too_early(seen: Seen) -> None:
    seen.delays = {"delayed-0": 13 * MS}


def _no_dead_letter(seen: Seen) -> None:
    seen.dead = set()


def _not_acknowledged(seen: Seen) -> None:
    seen.evidence.entries.append(Entry(INTENT, "fast-9", "-", 0, 0, PARENT))


def _timed_out(seen: Seen) -> None:
    seen.complete = False


DOCTORED: list[tuple[Callable[[Seen], None], str]] = [
    (_recorded_twice, "1 jobs were completed twice: b0"),
    (_ended_late, "1 jobs were completed by an attempt that had lost its lease: b0"),
    (_left_behind, "1 keys and entries were left behind: sq:{demo/demo}:side"),
    (_ended_twice, "1 jobs began more often than lost leases and retries explain: b0"),
    (_cron_twice, "1 jobs began more often than lost leases and retries explain: cron-tick-1"),
    (_lost, "1 jobs were acknowledged, and have neither a recorded end nor a place in Redis: burst-0"),
    (_left_running, "1 jobs were acknowledged, and have neither a recorded end nor a place in Redis: burst-0"),
    (_failed, "1 jobs ended otherwise than intended: burst-0 FAILURE"),
    (_never_ran, "1 jobs have a recorded end, but never ran: burst-0"),
    (_nobody_s, "1 jobs ran or ended, and nobody enqueued them: z0"),
    (_pair_of_two, "1 calls gave several jobs: pair-0"),
    (_too_early, "1 delayed jobs began too early: delayed-0"),
    (_no_dead_letter, "1 jobs that failed for good are no dead letters: doomed-0"),
    (_not_acknowledged, "1 calls of enqueue were never acknowledged: fast-9"),
    (_timed_out, "the run did not end in time"),
]


@pytest.mark.parametrize(("doctor", "complaint"), DOCTORED, ids=[each.__name__ for each, _ in DOCTORED])
def test_a_doctored_ledger_is_found_out(doctor: Callable[[Seen], None], complaint: str) -> None:
    seen = honest()
    doctor(seen)
    found = tally(seen)
    assert complaint in found.broken
    assert not found.ok
    assert json.loads(as_object(found))["ok"] is False
    assert complaint in summary(found, colour=False)
    assert "A promise was broken." in summary(found, colour=False)


def test_an_empty_ledger_is_no_division_by_zero() -> None:
    found = tally(Seen(complete=False))
    assert found.throughput == 0.0
    assert found.latency is None
    assert "A promise was broken." in summary(found, colour=True)


def test_a_ledger_is_read_as_it_grows_and_by_whole_lines(tmp_path: Path) -> None:
    book, reader = Ledger(tmp_path), Reader(tmp_path)
    book.note(START, "fast-1", "id-1", 2)
    first = list(reader.news())
    assert [(each.event, each.key, each.job_id, each.attempt, each.pid) for each in first] == [
        (START, "fast-1", "id-1", 2, os.getpid())
    ]
    with book.path.open("ab") as torn:
        torn.write(b"END fast-1 id-")
    assert list(reader.news()) == []
    with book.path.open("ab") as rest:
        rest.write(b"1 2 77\n")
    assert list(reader.news()) == [parsed("END fast-1 id-1 2 77", os.getpid())]
    book.note_all(INTENT, [("a", "-"), ("b", "-")])
    assert [each.key for each in reader.news()] == ["a", "b"]
    book.close()


@pytest.mark.parametrize("jobs", [20, 300, 10_000])
def test_the_load_has_every_kind(jobs: int) -> None:
    work = load(jobs)
    kinds = {key.partition("-")[0] for key, _ in work.mixed}
    assert kinds == {"slow", "flaky", "doomed", "delayed", "pair", "fast"}
    assert len(work.burst) == jobs * 3 // 5
    assert all(key.startswith("slow-") for key, _ in work.mixed[:4])
    assert set(work.delays) == {key for key, _ in work.mixed if key.startswith("delayed-")}
