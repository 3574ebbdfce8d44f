"""Numpy arrays to tensors and back."""

import numpy as np
import pytest
from kingpole_client import BFloat16, InvalidArgument, KingpoleError
from kingpole_client._arrays import DATATYPES, decode_tensor, encode_tensor

ARRAYS = [
    np.array([True, False]), np.arange(5, dtype=np.uint8), np.arange(5, dtype=np.uint16),
    np.arange(5, dtype=np.uint32), np.arange(5, dtype=np.uint64), np.arange(5, dtype=np.int8),
    np.arange(5, dtype=np.int16), np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int64),
    np.arange(5, dtype=np.float16), np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(5, dtype=np.float64),
    np.float32(1.5), np.empty((3, 0, 2), np.int64), np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
    np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)), np.arange(4, dtype=">f8"),
    np.arange(4, dtype=np.longlong),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_an_array_comes_back_as_it_went(array):
    tensor = encode_tensor("x", array)
    back = decode_tensor("x", tensor.datatype, tensor.shape, tensor.data)
    np.testing.assert_array_equal(back, array)
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert not back.flags.writeable


def test_a_contiguous_array_is_not_copied():
    array = np.arange(1000, dtype=np.float32)
    assert np.shares_memory(np.frombuffer(encode_tensor("x", array).data, np.uint8), array)
    data = memoryview(array.tobytes())
    assert np.shares_memory(
        decode_tensor("x", DATATYPES.index("FP32"), (1000,), data), np.frombuffer(data, np.uint8)
    )


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "bcd", ""]), np.array([b"a", b"\xff"]), np.array([["é", b"x"]], dtype=object),
     np.array("s"),
     np.empty((2, 0), dtype=object)],
    ids=["U", "S", "object", "scalar", "empty"],
)  # fmt: skip
def test_text_comes_back_as_bytes(array):
    tensor = encode_tensor("x", array)
    assert DATATYPES[tensor.datatype] == "BYTES"
    back = decode_tensor("x", tensor.datatype, tensor.shape, tensor.data)
    assert back.shape == array.shape
    expected = [e.encode() if isinstance(e, str) else bytes(e) for e in array.ravel().tolist()]
    assert back.ravel().tolist() == expected


def test_bf16_travels_with_and_without_ml_dtypes():
    tensor = encode_tensor("x", BFloat16.from_float32([[1.0, -2.5], [np.nan, np.inf]]))
    assert (DATATYPES[tensor.datatype], tensor.shape, tensor.data.nbytes) == ("BF16", (2, 2), 8)
    np.testing.assert_array_equal(BFloat16.from_float32([1.0, -2.5]).to_float32(), [1.0, -2.5])
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    back = decode_tensor("x", tensor.datatype, tensor.shape, tensor.data)
    assert back.dtype == ml_dtypes.bfloat16
    again = encode_tensor("x", back)
    assert (again.datatype, bytes(again.data)) == (tensor.datatype, bytes(tensor.data))


def test_rounding_to_bf16_agrees_with_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    numbers = np.random.default_rng(1).normal(scale=1e3, size=1000).astype(np.float32)
    np.testing.assert_array_equal(
        BFloat16.from_float32(numbers).bits, numbers.astype(ml_dtypes.bfloat16).view(np.uint16)
    )


@pytest.mark.parametrize(
    "value", [np.array([1j]), np.array(["2020"], dtype="M8[D]"), np.array([None], dtype=object)], ids=str
)
def test_what_is_no_datatype_is_refused_by_name(value):
    with pytest.raises(InvalidArgument, match="'x'"):
        encode_tensor("x", value)


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [(11, (2,), b"1234"), (11, (-1,), b""), (0, (), b""), (99, (), b""), (13, (1,), b"\xff\0\0\0a"),
     (13, (2,), b"\0\0\0\0"), (13, (1 << 40,), b""), (11, (1 << 62, 1 << 62), b""),
     (11, (0, 1 << 62, 1 << 62), b""),
     (13, (0, 1 << 62, 1 << 62), b""), (11, (1,) * 33, b"1234"), (13, (1,), b"\0\0")],
)  # fmt: skip
def test_a_tensor_that_cannot_be_is_refused(datatype, shape, data):
    with pytest.raises(KingpoleError, match="'x'"):
        decode_tensor("x", datatype, shape, memoryview(data))
