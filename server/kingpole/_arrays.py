"""Tensors as numpy sees them: the only module that says `dtype`.

Imported in workers only; the server process never loads numpy.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<I")


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Give numpy's type for a datatype.

    BF16 is `ml_dtypes.bfloat16` where that package is installed, else the bits as uint16.

    Raises:
        ValueError: For a name that is no datatype.
    """
    found = _DTYPES.get(datatype)
    if found is not None:
        return found
    if datatype != "BF16":
        raise ValueError(f"unknown datatype '{datatype}'")
    try:
        import ml_dtypes
    except ImportError:
        return _DTYPES["UINT16"]
    _DTYPES["BF16"] = np.dtype(ml_dtypes.bfloat16)
    return _DTYPES["BF16"]


def datatype_of(array: Array) -> str | None:
    """Name the datatype of an array, None when there is none for its type."""
    dtype = array.dtype
    found = _DATATYPES.get(dtype)
    if found is None:
        if dtype.kind in "SU":
            return "BYTES"
        if dtype.name == "bfloat16":
            return "BF16"
        found = _DATATYPES.get(dtype.newbyteorder("<"))
    return found


def view(buffer: Any, datatype: str, shape: tuple[int, ...], offset: int, nbytes: int) -> Array:
    """Look at a tensor's bytes as an array, without a copy except for BYTES.

    Raises:
        ValueError: When the bytes do not make up such a tensor.
    """
    if datatype == "BYTES":
        return read_bytes(memoryview(buffer)[offset : offset + nbytes], shape)
    dtype = dtype_of(datatype)
    elements = 1
    for size in shape:
        elements *= size
    if elements * dtype.itemsize != nbytes:
        raise ValueError(f"{nbytes} bytes are no {datatype} tensor of shape {shape}")
    if nbytes == 0:
        return np.empty(shape, dtype)
    made: Array = np.ndarray(shape, dtype, buffer, offset)
    return made


def read_bytes(data: memoryview, shape: tuple[int, ...]) -> Array:
    """Read a BYTES tensor: each element is four bytes of length, little endian, and its bytes.

    Raises:
        ValueError: When the lengths do not fill the data exactly.
    """
    elements = 1
    for size in shape:
        elements *= size
    array = np.empty(elements, object)
    offset, end = 0, len(data)
    for index in range(elements):
        if offset + 4 > end:
            raise ValueError(f"BYTES tensor ends within element {index} of {elements}")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += 4
        if offset + length > end:
            raise ValueError(f"BYTES tensor ends within element {index} of {elements}")
        array[index] = bytes(data[offset : offset + length])
        offset += length
    if offset != end:
        raise ValueError(f"BYTES tensor has {end - offset} bytes after its last element")
    return array.reshape(shape)


def write_bytes(array: Array) -> bytes:
    """Write an array of byte strings or text in the length-prefixed form.

    Raises:
        ValueError: For an element that is neither bytes nor text.
    """
    pieces: list[bytes] = []
    for element in array.ravel().tolist():
        if isinstance(element, str):
            element = element.encode()
        if not isinstance(element, bytes):
            raise ValueError(f"an element of a BYTES tensor is a {type(element).__name__}, not bytes or str")
        pieces.append(_LENGTH.pack(len(element)))
        pieces.append(element)
    return b"".join(pieces)


def to_datatype(array: Array, datatype: str) -> Array | None:
    """Bring an array into the exact layout of a datatype, or None when it is of another one.

    BF16 also accepts the bits as uint16, for models without `ml_dtypes`.
    """
    given = datatype_of(array)
    if given != datatype and not (datatype == "BF16" and given == "UINT16"):
        return None
    if datatype != "BYTES" and array.dtype.byteorder == ">":
        return array.astype(array.dtype.newbyteorder("<"))
    return array


__all__ = [
    "Array",
    "datatype_of",
    "dtype_of",
    "read_bytes",
    "to_datatype",
    "view",
    "write_bytes",
]
