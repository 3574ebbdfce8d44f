from __future__ import annotations

import numpy as np
import pytest
from kingpole._arrays import datatype_of, dtype_of, read_bytes, to_datatype, view, write_bytes
from kingpole.signature import ELEMENT_BYTES


@pytest.mark.parametrize("datatype", sorted(ELEMENT_BYTES))
def test_every_datatype_has_an_array_type_of_its_size(datatype: str) -> None:
    dtype = dtype_of(datatype)
    assert datatype == "BYTES" or dtype.itemsize == ELEMENT_BYTES[datatype]
    assert datatype_of(np.empty(0, dtype)) == datatype


def test_byte_strings_come_back_as_they_were() -> None:
    array = np.array([[b"", b"one"], [b"\xff\x00", b"two"]], object)
    data = write_bytes(array)
    np.testing.assert_array_equal(read_bytes(memoryview(data), (2, 2)), array)
    assert data[:11] == b"\0\0\0\0\x03\0\0\0one"


@pytest.mark.parametrize("data", [b"\x03\0\0\0on", b"\x03\0", b"\x03\0\0\0oneX", b"\xff\xff\xff\xffone"])
def test_byte_strings_that_lie_about_their_length_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="BYTES tensor"):
        read_bytes(memoryview(data), (1,))


def test_bytes_that_make_up_no_such_tensor_are_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes are no FP32 tensor"):
        view(bytearray(64), "FP32", (4,), 0, 12)


def test_a_view_shares_the_memory() -> None:
    buffer = bytearray(128)
    view(buffer, "INT32", (2,), 64, 8)[...] = [1, 2]
    assert buffer[64:72] == b"\x01\0\0\0\x02\0\0\0"


def test_other_byte_orders_are_brought_to_ours() -> None:
    converted = to_datatype(np.array([1, 2], ">i4"), "INT32")
    assert converted is not None
    assert converted.tobytes() == b"\x01\0\0\0\x02\0\0\0"


def test_an_array_of_another_datatype_is_refused() -> None:
    assert to_datatype(np.zeros(1, np.complex64), "FP32") is None
    assert to_datatype(np.zeros(1, np.float64), "FP32") is None
