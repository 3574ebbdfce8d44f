"""Counts from 0, one response for each number.

At the parameter `fail_at` it fails. However it ends, it then writes how far it came to the file `mark`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from kingpole.contract import ModelError
from numpy.typing import NDArray

INPUTS = [("count", "INT32", [1])]
OUTPUTS = [("value", "INT32", [1])]


def infer(count: NDArray[np.int32], parameters: Mapping[str, Any]) -> Iterator[NDArray[np.int32]]:
    value = -1
    try:
        for value in range(int(count[0])):
            if value == parameters.get("fail_at"):
                raise ModelError("UNAVAILABLE", f"cannot count beyond {value}")
            yield np.array([value], np.int32)
    finally:
        if "mark" in parameters:
            Path(parameters["mark"]).write_text(str(value))
