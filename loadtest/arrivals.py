"""When requests are meant to be sent: schedules made before the run begins.

Pure: knows neither clock nor socket. Every schedule is a function of its seed.
"""

from __future__ import annotations

import random


def poisson(rate: float, duration_us: int, seed: int) -> list[int]:
    """Draw the send times of a Poisson process.

    Args:
        rate: Mean requests per second.
        duration_us: Length of the schedule; every time is below it.
        seed: Same seed, same schedule.
    """
    return gamma(rate, 1.0, duration_us, seed)


def gamma(rate: float, coefficient_of_variation: float, duration_us: int, seed: int) -> list[int]:
    """Draw send times whose gaps follow a Gamma distribution.

    A coefficient of variation of 1 is a Poisson process, above 1 is bursty, below 1 is
    steadier than chance.

    Args:
        rate: Mean requests per second.
        coefficient_of_variation: Standard deviation of the gaps over their mean.
        duration_us: Length of the schedule; every time is below it.
        seed: Same seed, same schedule.

    Raises:
        ValueError: The rate or the coefficient of variation is not positive.
    """
    if rate <= 0 or coefficient_of_variation <= 0:
        raise ValueError("rate and coefficient of variation must be positive")
    shape = 1.0 / coefficient_of_variation**2
    scale_us = 1e6 / rate / shape
    generator = random.Random(seed)
    times: list[int] = []
    at_us = generator.gammavariate(shape, scale_us)
    while at_us < duration_us:
        times.append(int(at_us))
        at_us += generator.gammavariate(shape, scale_us)
    return times
