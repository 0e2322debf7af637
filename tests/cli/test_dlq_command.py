"""`streamq dlq`: list, show, retry, discard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamq import StreamQ
from streamq.broker.broker import NewJob
from streamq.core.job import Reason
from tests.cli.keyboard import Keyboard, Terminal, call
from tests.client.byhand import Hand


@pytest.fixture
def typed(
    url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keyboard:
    return Keyboard(url, namespace, tmp_path, monkeypatch, capsys)


@pytest.fixture
def terminal(tmp_path: Path, url: str, namespace: str) -> Iterator[Terminal]:
    with closing(Terminal(url, namespace, tmp_path)) as terminal:
        yield terminal


async def seed(app: StreamQ[Any]) -> None:
    for queue, task, job_id in (("default", "mail.send", "a"), ("default", "pay", "b"), ("slow", "mail.copy", "c")):
        await app.send_task(task, (1, "text"), {"html": True}, job_id=job_id, queue=queue)
    await app.broker.add("default", [NewJob("torn", bytes(range(256)) * 20)])
    for queue in ("default", "slow"):
        hand = Hand(app, queue)
        for delivery in await hand.take():
            await hand.bury(delivery, Reason.UNREADABLE if delivery.job_id == "torn" else Reason.FAILED)


async def waiting(app: StreamQ[Any]) -> set[str]:
    return {info.id for queue in ("default", "slow") for info in await app.queue(queue).jobs("QUEUED")}


def left(typed: Keyboard) -> list[str]:
    return [row[0] for row in typed("dlq", "list").rows]


# ---- list ---------------------------------------------------------------------------------------------------


def test_all_dead_letters(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "list")
    assert (ended.code, ended.err) == (0, "")
    assert [row[:5] for row in sorted(ended.rows)] == [
        ["a", "mail.send", "default", "failed", "1"],
        ["b", "pay", "default", "failed", "1"],
        ["c", "mail.copy", "slow", "failed", "1"],
        ["torn", "", "default", "unreadable", "1"],
    ]
    assert ended.rows[0][5:] == ["2025-06-15T15:06:43.000Z", "builtins.ValueError: no"]


FILTERS = [
    (("--task", "mail.*"), ["a", "c"]),
    (("--task", "mail.*", "--queue", "slow"), ["c"]),
    (("--error", "ValueError"), ["a", "b", "c", "torn"]),
    (("--error", "KeyError"), []),
    (("--before", "1h"), ["a", "b", "c", "torn"]),
    (("--before", "1000w"), []),
    (("--before", "2025-06-15T15:06:44+00:00"), ["a", "b", "c", "torn"]),
    (("--before", "2025-06-15T15:06:44"), ["a", "b", "c", "torn"]),  # a date without a zone is UTC
    (("--before", "2025-06-14"), []),
]


@pytest.fixture
def tokyo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(("words", "found"), FILTERS)
def test_some_dead_letters(typed: Keyboard, words: tuple[str, ...], found: list[str]) -> None:
    typed.meanwhile(seed)
    assert sorted(row[0] for row in typed("dlq", "list", *words).rows) == found


def test_before_a_date_to_come(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert len(typed("dlq", "list", "--before", tomorrow).rows) == 4


def test_limits_json_and_empty_results(typed: Keyboard) -> None:
    assert typed("dlq", "list").err == "no dead letters\n"
    typed.meanwhile(seed)
    ended = typed("dlq", "list", "--limit", "2", "--json")
    assert len(ended.json) == 2
    assert ended.err.startswith("these are the first 2;")
    assert typed("dlq", "list", "--jsonl", "--queue", "slow").jsonl == [
        {
            "id": "c",
            "task": "mail.copy",
            "queue": "slow",
            "priority": 0,
            "reason": "failed",
            "attempts": 1,
            "at": "2025-06-15T15:06:43.000Z",
            "error": "builtins.ValueError: no",
            "failures": [
                {
                    "attempt": 1,
                    "at": "2025-06-15T15:06:40.000Z",
                    "worker": "w1",
                    "error": "builtins.ValueError",
                    "message": "no",
                    "traceback": "Traceback: line 7",
                }
            ],
        }
    ]


@pytest.mark.parametrize("verb", ["list", "retry", "discard"])
def test_mistakes_of_any_verb(typed: Keyboard, verb: str) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", verb, "--queue", "slwo")
    assert (ended.code, "there is slow" in ended.err) == (4, True)
    ended = typed("dlq", verb, "--before", "soon")
    assert (ended.code, "older_than='soon' is not a duration" in ended.err) == (2, True)
    ended = typed("dlq", verb, "--url", "redis://127.0.0.1:1/0")
    assert (ended.code, ended.out) == (3, "")
    assert len(left(typed)) == 4


# ---- show ---------------------------------------------------------------------------------------------------


def test_one_with_its_tracebacks(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "show", "a")
    assert ended.code == 0
    assert "reason\tfailed\n" in ended.out
    assert "failure 1\t2025-06-15T15:06:40.000Z  w1  builtins.ValueError: no\nTraceback: line 7\n" in ended.out
    assert "args" not in ended.out
    ended = typed("dlq", "show", "a", "--queue", "default", "--args")
    assert 'args\t[1,"text"]\nkwargs\t{"html":true}\n' in ended.out
    assert typed("dlq", "show", "c", "--args", "--json").json["args"] == [1, "text"]


def test_an_unreadable_one_shows_its_bytes_if_asked(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    shown = typed("dlq", "show", "torn", "--args", "--show-bytes", "--json").json
    assert shown["bytes"] == f"{bytes(range(256)).hex(' ')} ... (4,096 bytes are kept)"
    assert "args" not in shown


def test_its_bytes_may_be_secret(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "show", "torn", "--args", "-v")
    assert "bytes_kept\t4096\n" in ended.out
    shown = typed("dlq", "show", "torn", "--args", "--json")
    assert (shown.json["bytes_kept"], "bytes" in shown.json) == (4096, False)
    for text in (ended.out, shown.out, typed("dlq", "list", "--json").out, typed("jobs", "show", "torn", "--args").out):
        assert "ABCDEF" not in text
        assert b"ABCDEF".hex(" ") not in text
    assert "bytes" not in typed("dlq", "show", "a", "--show-bytes", "--json").json  # of one that could be read


def test_one_that_is_not_there(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    for words in (("show", "x"), ("retry", "x"), ("discard", "x", "--yes"), ("show", "c", "--queue", "default")):
        ended = typed("dlq", *words)
        assert (ended.code, ended.out) == (4, "")
        assert f"There is no job '{words[1]}' in the dead letters of default" in ended.err


# ---- retry --------------------------------------------------------------------------------------------------


def test_one_is_retried_without_asking(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    assert typed("dlq", "retry", "a").rows == [["a", "retried"]]
    assert typed.meanwhile(waiting) == {"a"}
    assert sorted(left(typed)) == ["b", "c", "torn"]


def test_several_and_those_that_cannot(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "retry", "a", "torn")
    assert (ended.code, "this would retry 2 dead letters" in ended.err) == (2, True)
    ended = typed("dlq", "retry", "a", "torn", "x", "c", "--yes", "--json")
    assert ended.code == 1  # of the first that failed
    assert ended.json == [{"id": "a", "result": "retried"}, {"id": "c", "result": "retried"}]
    assert "torn cannot be retried: it could not be read" in ended.err
    assert "There is no job 'x'" in ended.err


def test_all_that_match_are_retried(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "retry", "--task", "mail.*")
    assert ended.code == 2
    assert "this would retry 2 dead letters" in ended.err
    assert "type   streamq dlq retry --task 'mail.*' --yes" in ended.err
    ended = typed("dlq", "retry", "--task", "mail.*", "--dry-run")
    assert (ended.code, ended.err) == (0, "would retry 2 dead letters\n")
    assert typed.meanwhile(waiting) == set()
    assert typed("dlq", "retry", "--task", "mail.*", "-y").rows == [["retried", "2"]]
    assert typed.meanwhile(waiting) == {"a", "c"}
    assert typed("dlq", "retry", "--yes", "--json").json == {"retried": 1}  # the torn one stays
    assert left(typed) == ["torn"]


def test_ids_or_filters(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "discard", "a", "--task", "mail.*", "--yes")
    assert (ended.code, "give ids or filters, not both" in ended.err) == (2, True)
    assert len(left(typed)) == 4


# ---- discard ------------------------------------------------------------------------------------------------


def test_even_one_is_discarded_only_with_a_yes(typed: Keyboard) -> None:
    typed.meanwhile(seed)
    ended = typed("dlq", "discard", "a")
    assert (ended.code, "this would discard 1 dead letter\n" in ended.err) == (2, True)
    assert typed("dlq", "discard", "a", "--yes").rows == [["a", "discarded"]]
    assert typed("dlq", "discard", "--error", "no such", "--yes").err.startswith("nothing to do: would discard 0")
    assert typed("dlq", "discard", "--queue", "default", "--yes").rows == [["discarded", "2"]]
    assert left(typed) == ["c"]


def test_many_with_a_bar_on_a_terminal(typed: Keyboard, terminal: Terminal) -> None:
    async def bury(app: StreamQ[Any]) -> None:
        await app.enqueue_many(call("task", n) for n in range(230))
        hand = Hand(app)
        for delivery in await hand.take(230):
            await hand.bury(delivery)

    typed.meanwhile(bury)
    code, text = terminal("dlq", "discard", "--queue", "default", answer="n\n")
    assert (code, "Discard 230 dead letters? [y/N]" in text) == (130, True)
    code, text = terminal("dlq", "discard", "--queue", "default", answer="y\n")
    assert code == 0
    assert "230/230" in text
    assert "/s" in text
    assert text.splitlines()[-1] == "discarded  230"
    assert left(typed) == []
