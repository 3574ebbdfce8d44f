"""The few Open Inference messages a load test needs, encoded and decoded by hand.

Knows protobuf's wire format and nothing of sockets or servers. It is written without
any generated code on purpose: the load test must not share a codec with the server or
the clients it judges.

Source: https://protobuf.dev/programming-guides/encoding/ and the Open Inference
Protocol's grpc_predict_v2.proto (field numbers in the constants below).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
STATISTICS_PATH = "/inference.GRPCInferenceService/ModelStatistics"

_LENGTH_DELIMITED = 2
_VARINT = 0
_FIXED64 = 1
_FIXED32 = 5

_MODEL_NAME = 1
_TENSORS = 5
_RAW_INPUT_CONTENTS = 7
_RAW_OUTPUT_CONTENTS = 6
_TENSOR_NAME, _TENSOR_DATATYPE, _TENSOR_SHAPE = 1, 2, 3


class MalformedError(ValueError):
    """A body is not the protobuf message or gRPC frame it should be."""


@dataclass(frozen=True)
class RawTensor:
    """A named tensor with its bytes, little-endian and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data


def encode_infer_request(model: str, inputs: Sequence[RawTensor]) -> bytes:
    """Encode a ModelInferRequest whose tensors travel as raw contents."""
    encoded = _field(_MODEL_NAME, model.encode())
    for tensor in inputs:
        shape = b"".join(_varint(dimension) for dimension in tensor.shape)
        encoded += _field(
            _TENSORS,
            _field(_TENSOR_NAME, tensor.name.encode())
            + _field(_TENSOR_DATATYPE, tensor.datatype.encode())
            + _field(_TENSOR_SHAPE, shape),
        )
    return encoded + b"".join(_field(_RAW_INPUT_CONTENTS, tensor.data) for tensor in inputs)


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if offset >= len(data) or shift > 63:
            raise MalformedError(f"varint at byte {offset} does not end")
        byte = data[offset]
        offset += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, offset
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield every field of a protobuf message as its number and its value.

    Raises:
        MalformedError: The bytes end inside a field, or a wire type is unknown.
    """
    offset = 0
    while offset < len(data):
        key, offset = _read_varint(data, offset)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, offset = _read_varint(data, offset)
            yield number, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, offset = _read_varint(data, offset)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise MalformedError(f"field {number} has wire type {wire_type}")
        if offset + length > len(data):
            raise MalformedError(f"field {number} of {length} bytes ends after the message")
        yield number, data[offset : offset + length]
        offset += length


def _decode_tensor(data: bytes) -> tuple[str, str, tuple[int, ...]]:
    name = datatype = ""
    shape: list[int] = []
    for number, value in fields(data):
        if number == _TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
        elif number == _TENSOR_DATATYPE and isinstance(value, bytes):
            datatype = value.decode()
        elif number == _TENSOR_SHAPE and isinstance(value, bytes):
            offset = 0
            while offset < len(value):
                dimension, offset = _read_varint(value, offset)
                shape.append(dimension)
        elif number == _TENSOR_SHAPE and isinstance(value, int):
            shape.append(value)
    return name, datatype, tuple(shape)


def decode_infer_response(data: bytes) -> list[RawTensor]:
    """Decode the outputs of a ModelInferResponse that uses raw contents.

    Raises:
        MalformedError: The message is broken, or outputs and raw contents do not pair up.
    """
    described: list[tuple[str, str, tuple[int, ...]]] = []
    contents: list[bytes] = []
    for number, value in fields(data):
        if number == _TENSORS and isinstance(value, bytes):
            described.append(_decode_tensor(value))
        elif number == _RAW_OUTPUT_CONTENTS and isinstance(value, bytes):
            contents.append(value)
    if len(described) != len(contents):
        raise MalformedError(f"{len(described)} outputs but {len(contents)} raw contents")
    return [
        RawTensor(*description, data=content)
        for description, content in zip(described, contents, strict=True)
    ]


def grpc_frame(payload: bytes) -> bytes:
    """Put gRPC's 5-byte prefix (not compressed, length) before a message."""
    return struct.pack(">BI", 0, len(payload)) + payload


def encode_json_request(name: str, rows: int, values: Sequence[float]) -> bytes:
    """Encode a REST infer request for one FP32 input of `rows` rows, values as JSON numbers."""
    tensor = {
        "name": name,
        "datatype": "FP32",
        "shape": [rows, len(values) // rows],
        "data": list(values),
    }
    return json.dumps({"inputs": [tensor]}).encode()
