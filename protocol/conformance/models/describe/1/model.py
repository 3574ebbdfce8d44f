"""Says which parameters a request came with, as a JSON object."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("text", "BYTES", [1])]


def infer(x: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.object_]:
    return np.array([json.dumps(dict(parameters)).encode()], object)
