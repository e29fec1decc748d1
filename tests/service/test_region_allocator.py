"""Regions never overlap, and a request that fits is never refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.service.region_allocator import RegionAllocator

SIZE = 40


@given(st.lists(st.tuples(st.integers(1, SIZE), st.integers(0, 99))))
def test_places_are_apart_and_found_wherever_there_is_one(steps):
    """Against a list of what each cell belongs to."""
    room, cells, taken = RegionAllocator(SIZE, max_regions=6), [None] * SIZE, []
    for number, (count, choice) in enumerate(steps):
        if taken and choice % 3 == 0:
            at = taken.pop(choice % len(taken))
            room.free(at)
            freed = cells[at]
            cells = [None if owner == freed else owner for owner in cells]
            continue
        fits = [at for at in range(SIZE - count + 1) if not any(owner is not None for owner in cells[at : at + count])]
        at = room.allocate(count)
        assert at == (fits[0] if fits and len(taken) < 6 else None)
        if at is not None:
            taken.append(at)
            cells[at : at + count] = [number] * count


def test_a_region_larger_than_the_memory_is_an_error():
    with pytest.raises(ValueError, match="41 do not fit into 40"):
        RegionAllocator(SIZE, max_regions=2).allocate(SIZE + 1)
