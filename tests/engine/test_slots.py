"""Slots and leases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.engine.lanes.slots import Slots


def test_the_lowest_free_slot_is_leased_first() -> None:
    slots = Slots(3)
    first, second, third = (slots.lease() for _ in range(3))
    assert [lease.slot for lease in (first, second, third)] == [0, 1, 2]
    assert slots.lease() is None
    slots.release(third)
    slots.release(first)
    assert slots.lease().slot == 0
    assert slots.scratch == 3


def test_a_lease_ends_once() -> None:
    slots = Slots(1)
    lease = slots.lease()
    slots.release(lease)
    with pytest.raises(ValueError, match="has ended"):
        slots.release(lease)
    again = slots.lease()
    assert again.slot == lease.slot
    assert not slots.is_valid(lease)
    assert slots.is_valid(again)


@given(st.integers(1, 6), st.lists(st.integers(0, 20), max_size=200))
def test_no_slot_is_leased_twice_or_lost(count: int, actions: list[int]) -> None:
    slots, held, seen = Slots(count), [], set()
    for action in actions:
        if action % 3 and held:
            slots.release(held.pop(action % len(held)))
        elif lease := slots.lease():
            assert lease not in seen
            seen.add(lease)
            held.append(lease)
        rows = [lease.slot for lease in held]
        assert len(set(rows)) == len(rows)
        assert slots.free == count - len(held)
        assert all(slots.is_valid(lease) for lease in held)
        assert not any(slots.is_valid(lease) for lease in seen - set(held))
