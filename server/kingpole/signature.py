"""What a model takes and gives: names, datatypes and shapes.

Imported by the server process and by workers, so this module may not know numpy
nor any framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

ELEMENT_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
    "BYTES": None,
}
"""Bytes of one element by datatype; None for BYTES, whose elements differ in size."""

DEFAULT_MAX_BATCH_SIZE = 32
"""Rows of a batch for a model that can batch and whose configuration does not say how many."""


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One input or output as declared.

    `shape` is the whole shape, including the leading -1 of a model that batches;
    -1 stands for any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def row(self) -> list[Any]:
        """The form that travels to the core and over the worker's socket."""
        return [self.name, self.datatype, list(self.shape)]

    def mismatch(self, shape: Sequence[int]) -> str | None:
        """Say how a shape differs from the declared one, or None when it fits."""
        if len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        ):
            return None
        return f"expected shape {format_shape(self.shape)}, got {format_shape(shape)}"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model reports of itself.

    `max_batch_size` is 0 for a model that cannot batch, None when the backend cannot tell. A
    `decoupled` model answers a request with any number of responses.
    """

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    decoupled: bool = False
    description: str = ""
    notes: tuple[str, ...] = ()


def format_shape(shape: Sequence[int]) -> str:
    """Write a shape as users type it, `[-1,16]`."""
    return "[" + ",".join(str(size) for size in shape) + "]"


def is_batchable(specs: Iterable[TensorSpec]) -> bool:
    """Say whether tensors of these declarations can be joined along dimension 0.

    Source: Triton's ONNX Runtime backend: batching is possible if and only if every
    input and output has a variable first dimension.
    """
    specs = tuple(specs)
    return bool(specs) and all(spec.shape[:1] == (-1,) for spec in specs)
