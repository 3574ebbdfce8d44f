from __future__ import annotations

import pytest

from loadtest.percentiles import Spread, percentile


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_the_percentile_is_the_nearest_rank(fraction: float, expected: int) -> None:
    assert percentile(range(1, 101), fraction) == expected


def test_there_is_no_percentile_of_nothing_and_none_outside_of_one() -> None:
    with pytest.raises(ValueError, match="empty"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="fraction"):
        percentile([1], 0.0)


def test_a_spread_is_the_median_with_the_least_and_the_greatest() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4, 1, 2, 3]) == Spread(2.5, 1, 4)


def test_a_spread_hides_a_range_that_would_say_nothing() -> None:
    assert Spread.of([12_345.2, 12_345.4]).show() == "12,345"
    assert Spread.of([1.0, 3.0]).show(1) == "2.0 (1.0-3.0)"
