"""Fails as the parameters `code` and `text` say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from kingpole.contract import ModelError
from numpy.typing import NDArray

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]


def infer(x: NDArray[np.float32], parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    if "code" in parameters:  # left out when the server warms up
        raise ModelError(parameters["code"], parameters["text"])
    return x
