import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.bench.statistics import largest, slope, spread_of


def test_a_spread_is_that_of_numpy_with_the_most_beside() -> None:
    spread = spread_of([float(value) for value in range(101)])
    assert spread is not None
    assert (spread.count, spread.p50, spread.p90, spread.p99, spread.most) == (101, 50, 90, 99, 100)
    assert spread_of([]) is None


@given(st.integers(0, 3000), st.integers(1, 500), st.integers(1, 2000))
def test_the_largest_that_holds_is_found(limit: int, first: int, most: int) -> None:
    asked = []

    def holds(number: int) -> bool:
        asked.append(number)
        return number <= limit

    found = largest(holds, first, most)
    right = min(limit, most)
    assert found <= right <= found + max(1, 0.05 * found) + 1
    assert found == 0 or found in asked
    assert len(asked) == len(set(asked))
    assert all(1 <= number <= most for number in asked)


def test_a_search_that_is_exact_takes_few_trials() -> None:
    asked = []
    assert largest(lambda number: asked.append(number) or number <= 137, 10, 10_000, precision=0) == 137
    assert asked[:5] == [10, 20, 40, 80, 160]
    assert len(asked) == 11


def test_a_slope_is_growth_in_a_unit_of_time() -> None:
    assert slope([0, 1, 2, 3], [5, 7.5, 9.5, 12]) == pytest.approx(2.3)
    assert slope([1.0], [5.0]) == 0
