"""What the test server serves, as its clients know it: models, tensors and what they compute.

Used by the tests and by the clients' programs: it may know numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MLP = "mlp"
"""FP32 `x` (-1, 4) to FP32 `y` (-1, 3), the default model."""

WORKER_MLP = "mlp-worker"
"""The same in a worker process."""

IDENTITY = "identity"
"""Four inputs (-1, -1), each to the output of its name and `_out`."""

COUNT = "count"
"""INT32 `count` (1) to any number of responses INT32 `value` (1): 0, 1, 2 and so on. The parameter `fail_at`
makes it fail at a value, `wait_us` makes it wait before each."""

LABELS = ("tea", "espresso", "wäter")
"""What the classes of the MLP's output are called."""

DATATYPES = {"floats": "FP32", "halves": "FP16", "texts": "BYTES", "counts": "INT64"}
"""The inputs of `IDENTITY`."""

# Small integers: every sum is exact, whatever order a runtime adds in.
FIRST = (np.arange(32, dtype=np.float32).reshape(4, 8) % 5) - 2
SECOND = (np.arange(24, dtype=np.float32).reshape(8, 3) % 7) - 3
BIAS = np.arange(8, dtype=np.float32) - 4


def mlp(x: Any) -> Any:
    """What the MLP answers."""
    return np.maximum(x @ FIRST + BIAS, 0) @ SECOND


def classes(x: Any, count: int) -> list[list[str]]:
    """The highest classes of each row that the MLP answers, as the classification extension writes them."""
    return [
        [f"{row[index]:.6f}:{index}:{LABELS[index]}" for index in np.argsort(-row, kind="stable")[:count]]
        for row in mlp(x)
    ]


def rows(count: int) -> Any:
    """So many rows of input for the MLP."""
    return (np.arange(count * 4, dtype=np.float32).reshape(count, 4) % 11) - 5


def identity_inputs() -> dict[str, Any]:
    """A tensor for each input of `IDENTITY`, with the values that get lost most easily."""
    return {
        "floats": np.array([[1.5, -0.0, np.finfo(np.float32).max], [1e-45, 2.0, 0.1]], np.float32),
        "halves": np.array([[1.5, -2.0, 65504.0], [6e-8, 0.0, 0.333]], np.float16),
        "texts": np.array([["", "Grüße"], ['a"b\\', "x" * 300]], dtype=object),
        "counts": np.array([[2**63 - 1, -(2**63)], [2**53 + 1, 0]], np.int64),
    }


def as_bytes(texts: Any) -> Any:
    """The same texts encoded, as most clients give them back."""
    encoded = [text.encode() if isinstance(text, str) else bytes(text) for text in texts.flatten()]
    return np.array(encoded, dtype=object).reshape(texts.shape)


def check_equal(given: Any, expected: Any) -> None:
    """Demand the same elements in the same shape, and the same datatype unless it is text."""
    assert given.shape == expected.shape, f"shape {given.shape}, expected {expected.shape}"
    if expected.dtype == object:
        given, expected = as_bytes(given), as_bytes(expected)
    else:
        assert given.dtype == expected.dtype, f"{given.dtype}, expected {expected.dtype}"
    assert np.array_equal(given, expected), f"got {given!r}, expected {expected!r}"


def check_raises(kind: type[BaseException], call: Any, *parts: str) -> BaseException:
    """Demand that a call fails with this exception and a text that names these parts."""
    try:
        call()
    except kind as error:
        check_named(str(error), *parts)
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def check_named(text: str, *parts: str) -> None:
    """Demand that an error's text names these parts."""
    for part in parts:
        assert part in text, f"expected {part!r} in {text!r}"
