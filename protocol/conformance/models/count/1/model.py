"""Counts from 0, one response for each number.

At the parameter `fail_at` it fails; at its end, whatever that is, it writes how far it came to the file `mark`.
"""

from pathlib import Path

import numpy as np
from kingpole.contract import ModelError

INPUTS = [("count", "INT32", [1])]
OUTPUTS = [("value", "INT32", [1])]


def infer(count, parameters):
    value = -1
    try:
        for value in range(int(count[0])):
            if value == parameters.get("fail_at"):
                raise ModelError("UNAVAILABLE", f"cannot count beyond {value}")
            yield np.array([value], np.int32)
    finally:
        if "mark" in parameters:
            Path(parameters["mark"]).write_text(str(value))
