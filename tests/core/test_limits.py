"""Bounds: the largest that passes, the smallest that does not."""

from __future__ import annotations

import pytest

from streamq.core.limits import DEFAULT_MAX_PAYLOAD, MAX_BATCH, WARN_PAYLOAD, check_payload
from streamq.errors import PayloadTooLarge


def test_a_payload_of_exactly_the_limit_passes() -> None:
    check_payload(DEFAULT_MAX_PAYLOAD, DEFAULT_MAX_PAYLOAD, "the arguments of 'add'")


def test_one_byte_more_is_refused_with_advice() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        check_payload(DEFAULT_MAX_PAYLOAD + 1, DEFAULT_MAX_PAYLOAD, "the arguments of 'add'")
    for part in ("the arguments of 'add'", "1,048,577", "1,048,576", "id or a URL", "max_payload"):
        assert part in str(caught.value)


def test_the_bounds_fit_one_another() -> None:
    assert WARN_PAYLOAD < DEFAULT_MAX_PAYLOAD
    assert MAX_BATCH * 8 < 8_000  # the values of one batch, unpacked in Lua
