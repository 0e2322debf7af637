"""Free slots and whose turn it is: arithmetic without Redis."""

from __future__ import annotations

from streamq.worker.slots import Share, Slots, allot


def test_one_hungry_queue_gets_all() -> None:
    calm = Share("b")
    calm.hungry = False
    assert allot(7, [Share("a"), calm]) == {"a": 7}


def test_weights_share_the_free_slots() -> None:
    assert allot(8, [Share("high", 3), Share("low", 1)]) == {"high": 6, "low": 2}


def test_a_slot_goes_to_the_least_served_for_its_weight() -> None:
    high, low = Share("high", 3), Share("low", 1)
    high.served = 1.0
    assert allot(1, [high, low]) == {"high": 0, "low": 1}


def test_over_many_rounds_of_one_slot_the_weights_hold() -> None:
    slots = Slots(1, 0, {"high": 3, "low": 1})
    got = {"high": 0, "low": 0}
    for _ in range(400):
        for queue in got:
            share = slots.share(queue)
            wanted = slots.reserve(share)
            slots.settle(share, wanted, wanted)
            got[queue] += wanted
            if wanted:
                break
    assert sum(got.values()) == 400
    assert abs(got["high"] - 300) <= 2


def test_a_silent_queue_comes_back_without_credit() -> None:
    slots = Slots(10, 0, {"busy": 1, "silent": 1})
    busy, silent = slots.share("busy"), slots.share("silent")
    slots.feed(silent, False)
    slots.settle(busy, 0, 1_000)
    slots.feed(silent, True)
    assert silent.served == busy.served


def test_reservations_and_running_jobs_are_not_free() -> None:
    slots = Slots(10, 5, {"q": 1})
    share = slots.share("q")
    slots.running, slots.waiting = 8, 1
    assert slots.free == 6
    assert slots.reserve(share) == 6
    assert slots.free == 0
    slots.settle(share, 6, 0)
    slots.listening = 1
    assert slots.free == 5
    assert slots.idle
    slots.running = 10
    assert not slots.idle


def test_a_listener_never_keeps_the_last_slot_from_another_queue() -> None:
    slots = Slots(1, 0, {"a": 1, "b": 1})
    slots.listening = 1
    assert slots.free == 1
