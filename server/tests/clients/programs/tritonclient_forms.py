"""What the programs of tritonclient share: its clients are blocking or asynchronous, and otherwise alike."""

from __future__ import annotations

import inspect
from typing import Any

PLUS_ONE = b"""
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    return x + 1
"""
"""A model to be loaded from a request."""


async def settled(given: Any) -> Any:
    """What a call gives, once it is there."""
    return await given if inspect.isawaitable(given) else given
