"""Numpy arrays to tensors and back; the one module that speaks of dtypes.

Knows no frame and no transport. Arrays made from received bytes are read-only views of them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kingpole_client.errors import Internal, InvalidArgument

Array = npt.NDArray[Any]

DATATYPES = (
    "NONE", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32",
    "FP64", "BYTES", "BF16",
)  # fmt: skip
BYTES, BF16 = DATATYPES.index("BYTES"), DATATYPES.index("BF16")
MAX_RANK = 32
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.bool_), 2: np.dtype("u1"), 3: np.dtype("<u2"), 4: np.dtype("<u4"), 5: np.dtype("<u8"),
    6: np.dtype("i1"), 7: np.dtype("<i2"), 8: np.dtype("<i4"), 9: np.dtype("<i8"), 10: np.dtype("<f2"),
    11: np.dtype("<f4"), 12: np.dtype("<f8"),
}  # fmt: skip
_NUMBERS: dict[np.dtype[Any], int] = {dtype: number for number, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<I")


class BFloat16:
    """An array of BF16 where ml_dtypes is not installed: the upper halves of FP32 numbers, as uint16."""

    __slots__ = ("bits",)

    def __init__(self, bits: npt.NDArray[np.uint16]) -> None:
        if bits.dtype != np.uint16:
            raise InvalidArgument(f"BFloat16 holds uint16 bits, got {bits.dtype}")
        self.bits = bits

    @classmethod
    def from_float32(cls, array: npt.ArrayLike) -> BFloat16:
        """Round FP32 numbers to the nearest BF16, ties to even; NaN stays NaN."""
        source = np.ascontiguousarray(array, dtype=np.float32)
        wide = source.view(np.uint32)
        rounded = ((wide + (((wide >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
        rounded = np.where(np.isnan(source), np.uint16(0x7FC0), rounded)
        return cls(np.asarray(rounded, dtype=np.uint16).reshape(np.shape(array)))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return the same numbers as FP32."""
        return (self.bits.astype(np.uint32) << 16).view(np.float32)


class EncodedTensor(NamedTuple):
    """A tensor ready for a frame."""

    name: str
    datatype: int
    shape: tuple[int, ...]
    data: memoryview


def dtype_of(datatype: int) -> np.dtype[Any]:
    """Return numpy's dtype of a datatype's elements as JSON holds them; BF16 are numbers there, FP32."""
    return np.dtype("<f4") if datatype == BF16 else _DTYPES[datatype]


def _bf16_dtype() -> np.dtype[Any] | None:
    # An array of it can only exist, and is only wanted, where its package has been imported.
    module = sys.modules.get("ml_dtypes")
    return None if module is None else np.dtype(module.bfloat16)


def encode_tensor(name: str, value: Array | BFloat16 | Sequence[Any] | Any) -> EncodedTensor:
    """Describe an array and view its bytes; copies only what is not contiguous or not little-endian.

    Raises:
        InvalidArgument: The array's dtype is no datatype, or it has too many dimensions.
    """
    if isinstance(value, BFloat16):
        array: Array = value.bits
        number: int | None = BF16
    else:
        array = np.asarray(value)
        number = _NUMBERS.get(array.dtype)
    if array.ndim > MAX_RANK:
        raise InvalidArgument(f"input '{name}': {array.ndim} dimensions, the most is {MAX_RANK}")
    shape = array.shape
    if number is None:
        kind = array.dtype.kind
        if kind in "OSU":
            return EncodedTensor(name, BYTES, shape, _encode_strings(name, array))
        bf16 = _bf16_dtype()
        if bf16 is not None and array.dtype == bf16:
            array, number = array.view(np.uint16), BF16
        else:
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            number = _NUMBERS.get(array.dtype)
            if number is None:
                raise InvalidArgument(f"input '{name}': numpy's {array.dtype} is no datatype of the protocol")
    if array.size == 0:
        return EncodedTensor(name, number, shape, memoryview(b""))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return EncodedTensor(name, number, shape, memoryview(flat.data))


def _encode_strings(name: str, array: Array) -> memoryview:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        if isinstance(element, str):
            element = element.encode()
        elif not isinstance(element, (bytes, bytearray, memoryview)):
            raise InvalidArgument(f"input '{name}': an element is {type(element).__name__}, not str or bytes")
        parts.append(_LENGTH.pack(len(element)))
        parts.append(bytes(element))
    return memoryview(b"".join(parts))


def decode_tensor(name: str, datatype: int, shape: tuple[int, ...], data: memoryview) -> Array:
    """Make an array of a received tensor: a read-only view, but BYTES become an object array of bytes.

    Raises:
        Internal: Datatype, shape and bytes do not belong together.
    """
    if not 0 < datatype < len(DATATYPES):
        raise Internal(f"output '{name}': unknown datatype {datatype}")
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise Internal(f"output '{name}': impossible shape {list(shape)}")
    elements = 1
    for size in shape:
        elements *= size
    if datatype == BYTES:
        return _decode_strings(name, shape, elements, data)
    dtype = np.dtype("<u2") if datatype == BF16 else _DTYPES[datatype]
    if elements * dtype.itemsize != len(data):
        expected = elements * dtype.itemsize
        raise Internal(
            f"output '{name}': {DATATYPES[datatype]} {list(shape)} needs {expected} bytes, got {len(data)}"
        )
    try:
        array: Array = np.frombuffer(data, dtype=dtype).reshape(shape) if elements else np.empty(shape, dtype)
    except (ValueError, OverflowError, MemoryError) as error:  # sizes whose product numpy cannot hold
        raise Internal(f"output '{name}': impossible shape {list(shape)}: {error}") from None
    array.flags.writeable = False
    if datatype == BF16:
        return _view_bf16(array)
    return array


def _view_bf16(bits: Array) -> Array:
    try:
        import ml_dtypes
    except ImportError:
        return bits
    return bits.view(ml_dtypes.bfloat16)


def _decode_strings(name: str, shape: tuple[int, ...], elements: int, data: memoryview) -> Array:
    if elements * 4 > len(data):
        raise Internal(
            f"output '{name}': BYTES {list(shape)} needs {elements} elements, got {len(data)} bytes"
        )
    found: list[bytes] = []
    position, end = 0, len(data)
    while position < end and len(found) <= elements:
        start = position + 4
        if start > end:
            raise Internal(f"output '{name}': the last element's length is cut off")
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > end:
            raise Internal(f"output '{name}': an element passes the end of the tensor")
        found.append(bytes(data[start:position]))
    if len(found) != elements:
        raise Internal(f"output '{name}': BYTES {list(shape)} needs {elements} elements, got {len(found)}")
    try:
        array: Array = np.empty(elements, dtype=object)
        array[:] = found
        array = array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Internal(f"output '{name}': impossible shape {list(shape)}: {error}") from None
    array.flags.writeable = False
    return array
