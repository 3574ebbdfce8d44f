"""Percentiles and spreads of small and large samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(ordered: Sequence[int], fraction: float) -> int:
    """Return the nearest-rank percentile of an ascending sample.

    Raises:
        ValueError: The sample is empty, or the fraction is not in (0, 1].
    """
    if not ordered:
        raise ValueError("no percentile of an empty sample")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} is not in (0, 1]")
    return ordered[math.ceil(fraction * len(ordered)) - 1]


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value per round.

        Raises:
            ValueError: There is no value.
        """
        if not values:
            raise ValueError("no spread of nothing")
        ordered = sorted(values)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        return cls(median, ordered[0], ordered[-1])

    def show(self, digits: int = 0) -> str:
        """Write the median with its range, as "12 (10-13)"; the range is left out when it says nothing."""
        median, least, greatest = (
            f"{value:,.{digits}f}" for value in (self.median, self.least, self.greatest)
        )
        return median if least == greatest else f"{median} ({least}-{greatest})"
