"""How long to wait. Time is an int of microseconds on the monotonic clock."""

from __future__ import annotations

import time

from kingpole_client.errors import DeadlineExceeded

# The server knows the timeout too and answers when it expires: its word, which says more, gets this long
# to arrive before we give up ourselves.
GRACE_US = 250_000


def now_us() -> int:
    """Return the present."""
    return time.monotonic_ns() // 1000


def wait_deadline_us(timeout_us: int | None) -> int | None:
    """Return when to give up waiting for an answer that was asked for with `timeout_us`."""
    return None if timeout_us is None else now_us() + timeout_us + GRACE_US


def seconds_left(deadline_us: int | None) -> float | None:
    """Return what a socket's or future's timeout takes.

    Raises:
        DeadlineExceeded: Nothing is left.
    """
    if deadline_us is None:
        return None
    left_us = deadline_us - now_us()
    if left_us <= 0:
        raise DeadlineExceeded("no answer came in time")
    return left_us / 1e6
