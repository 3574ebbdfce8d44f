"""Gives back what it was given, after as many `seconds` as the parameter says."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]


def infer(x: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    time.sleep(parameters.get("seconds", 0))
    return x
