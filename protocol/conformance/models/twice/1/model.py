"""Has two outputs: what it was given, and twice that."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("a", "FP32", [-1, -1]), ("b", "FP32", [-1, -1])]


def infer(x: Floats) -> tuple[Floats, Floats]:
    return x, 2 * x
