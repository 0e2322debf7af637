"""Job ids: form, order, uniqueness over threads and forks."""

from __future__ import annotations

import os
import re
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.core import ids
from streamq.core.ids import check_job_id, new_id
from streamq.errors import ConfigurationError, InvalidArguments

FORM = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")
NOW = 1_750_000_000_000


def milliseconds_of(job_id: str) -> int:
    return int(job_id[:12], 16)


def test_an_id_is_a_uuid_version_7_with_its_time() -> None:
    job_id = new_id(NOW + 10**9)
    assert FORM.fullmatch(job_id)
    assert uuid.UUID(job_id).version == 7
    assert uuid.UUID(job_id).variant == uuid.RFC_4122
    assert milliseconds_of(job_id) == NOW + 10**9


def test_ids_grow_within_one_millisecond() -> None:
    made = [new_id(NOW) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {milliseconds_of(job_id) for job_id in made} == {NOW}


def test_ids_grow_by_the_local_clock() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))


@given(st.lists(st.integers(-500, 500), max_size=20))
def test_ids_grow_while_the_clock_trembles(steps: list[int]) -> None:
    now, made = NOW, [new_id(0), new_id(NOW)]
    for step in steps:
        now = max(now + step, NOW - 9_000)
        made.append(new_id(now))
    # Ten seconds of tolerance count from the newest time seen.
    if max(milliseconds_of(job_id) for job_id in made) - now <= 10_000:
        assert made == sorted(set(made))


def test_a_clock_set_far_back_is_followed() -> None:
    new_id(NOW + 86_400_000)
    assert milliseconds_of(new_id(NOW)) == NOW


def test_the_first_milliseconds_of_the_epoch_can_be_used() -> None:
    new_id(NOW)
    assert milliseconds_of(new_id(0)) == 0


def test_a_used_up_millisecond_goes_on_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id(NOW)
    monkeypatch.setattr(ids, "_tail", (0b11 << 62) - 1)
    after = new_id(NOW)
    assert after > before
    assert milliseconds_of(after) == NOW + 1
    assert FORM.fullmatch(after)


def ids_of_a_thread(count: int) -> list[str]:
    return [new_id(NOW) for _ in range(count)]


def test_threads_never_share_an_id() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(ids_of_a_thread, [5_000] * 8))
    finally:
        sys.setswitchinterval(interval)
    assert len({job_id for batch in batches for job_id in batch}) == 40_000
    assert all(batch == sorted(batch) for batch in batches)


def ids_of_a_forked_child(count: int) -> list[str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(new_id(NOW) for _ in range(count)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return [text[i : i + 32] for i in range(0, len(text), 32)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_children_share_no_id_with_each_other_or_their_parent() -> None:
    new_id(NOW)
    made = ids_of_a_forked_child(100) + ids_of_a_forked_child(100) + [new_id(NOW) for _ in range(100)]
    assert len(set(made)) == 300


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_another_thread_makes_an_id_blocks_nobody() -> None:
    with ids._lock:  # pyright: ignore[reportPrivateUsage]
        assert len(ids_of_a_forked_child(1)) == 1


@pytest.mark.parametrize("value", ["a", "invoice-2025-0042", "x" * 128, "!~{}:*", "01a1ff48d0d270838a50487703e0a1bb"])
def test_a_usable_id_is_returned(value: str) -> None:
    assert check_job_id(value) == value


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "a b", "a\n", "\x00", "\x7f", "tab\t", "ümlaut", "\u2028", 7, None, b"a"]
)
def test_an_unusable_id_is_refused_with_what_is_allowed(value: str) -> None:
    with pytest.raises(InvalidArguments, match="1 to 128 printable ASCII") as caught:
        check_job_id(value)
    assert not isinstance(caught.value, ConfigurationError)
    assert len(str(caught.value)) < 400
