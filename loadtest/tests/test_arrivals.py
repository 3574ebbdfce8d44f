from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from loadtest import arrivals


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    assert arrivals.poisson(1_000, 1_000_000, 3) == arrivals.poisson(1_000, 1_000_000, 3)
    assert arrivals.poisson(1_000, 1_000_000, 3) != arrivals.poisson(1_000, 1_000_000, 4)


def test_send_times_ascend_and_stay_inside_the_duration() -> None:
    times = arrivals.gamma(5_000, 3.0, 2_000_000, 1)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 2_000_000


@pytest.mark.parametrize("variation", [0.5, 1.0, 3.0])
def test_gaps_have_the_mean_and_the_variation_that_were_asked_for(variation: float) -> None:
    times = arrivals.gamma(1_000, variation, 60_000_000, 1)
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1_000, rel=0.05)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.1)


@pytest.mark.parametrize(("rate", "variation"), [(0, 1.0), (-1, 1.0), (10, 0.0)])
def test_a_schedule_needs_positive_numbers(rate: float, variation: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        arrivals.gamma(rate, variation, 1_000, 1)
