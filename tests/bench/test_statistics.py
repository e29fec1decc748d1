import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.bench.statistics import compute_spread, find_largest, slope


def test_a_spread_has_numpys_percentiles_and_the_maximum() -> None:
    spread = compute_spread([float(value) for value in range(101)])
    assert spread is not None
    assert (spread.count, spread.p50, spread.p90, spread.p99, spread.most) == (101, 50, 90, 99, 100)
    assert compute_spread([]) is None


@given(st.integers(0, 3000), st.integers(1, 500), st.integers(1, 2000))
def test_find_largest(limit: int, first: int, maximum: int) -> None:
    tried = []

    def predicate(number: int) -> bool:
        tried.append(number)
        return number <= limit

    found = find_largest(predicate, first, maximum)
    expected = min(limit, maximum)
    assert found <= expected <= found + max(1, 0.05 * found) + 1
    assert found == 0 or found in tried
    assert len(tried) == len(set(tried))
    assert all(1 <= number <= maximum for number in tried)


def test_a_search_that_is_exact_takes_few_trials() -> None:
    tried = []
    assert find_largest(lambda number: tried.append(number) or number <= 137, 10, 10_000, precision=0) == 137
    assert tried[:5] == [10, 20, 40, 80, 160]
    assert len(tried) == 11


def test_a_slope_is_growth_in_a_unit_of_time() -> None:
    assert slope([0, 1, 2, 3], [5, 7.5, 9.5, 12]) == pytest.approx(2.3)
    assert slope([1.0], [5.0]) == 0
