"""Bytes as a client may send them, good or bad: HTTP over a plain socket, protobuf, GraphPipe, frames.

Nothing here is taken from the server, and nothing checks what it is asked to write.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

SECONDS = 30
FRAME = "application/x-kingpole"


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=SECONDS)


def head(path: str, headers: Mapping[str, str], method: str = "POST") -> bytes:
    """The request line and headers, as they are given."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: test",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def post(
    address: tuple[str, int], path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> Answer:
    """POST a body with its length announced."""
    with connect(address) as opened:
        opened.sendall(head(path, {"Content-Length": str(len(body)), **(headers or {})}) + body)
        return read_answer(opened)


def chunk(piece: bytes) -> bytes:
    """A piece of a body whose length is not announced."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def read_answer(opened: socket.socket) -> Answer:
    """Read one HTTP/1.1 response whose length is announced."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(opened, received)
    above, body = received.split(b"\r\n\r\n", 1)
    first, *lines = above.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    while len(body) < int(headers["content-length"]):
        body += _receive(opened, body)
    return Answer(int(first.split()[1]), headers, body)


def _receive(opened: socket.socket, so_far: bytes) -> bytes:
    received = opened.recv(65536)
    assert received, f"the server closed the connection after {so_far[:200]!r}"
    return received


def read_all(opened: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    while True:
        try:
            piece = opened.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def json_request(x: Any, **fields: Any) -> dict[str, Any]:
    """A REST request for the MLP; `fields` replace those of its input."""
    given = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.flatten().tolist(), **fields}
    return {"inputs": [given]}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def varint(value: int) -> bytes:
    written = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def protobuf_request(
    x: Any,
    *,
    model: str = "mlp",
    version: str = "",
    name: str = "x",
    datatype: str = "FP32",
    shape: tuple[int, ...] | None = None,
    raw: list[bytes] | None = None,
    more: bytes = b"",
) -> bytes:
    """A `ModelInferRequest`."""
    dimensions = b"".join(varint(size) for size in (x.shape if shape is None else shape))
    tensor = field(1, name) + field(2, datatype) + field(3, dimensions)
    contents = [x.tobytes()] if raw is None else raw
    return (
        field(1, model)
        + field(2, version)
        + field(5, tensor)
        + b"".join(field(7, each) for each in contents)
        + more
    )


def graphpipe_request(
    data: bytes,
    shape: tuple[int, ...],
    *,
    type_number: int = 10,
    input_names: tuple[str, ...] = (),
    output_names: tuple[str, ...] = (),
    kind: int = 1,
    config: str | None = None,
) -> bytes:
    """A GraphPipe `Request` with one tensor."""
    builder = flatbuffers.Builder(256)
    payload = builder.CreateByteVector(data)
    dimensions = _vector(builder, list(shape), 8, builder.PrependInt64)
    builder.StartObject(4)
    builder.PrependUint8Slot(0, type_number, 0)
    builder.PrependUOffsetTRelativeSlot(1, dimensions, 0)
    builder.PrependUOffsetTRelativeSlot(2, payload, 0)
    tensor = builder.EndObject()
    offsets = [
        _vector(builder, [builder.CreateString(name) for name in names], 4, builder.PrependUOffsetTRelative)
        for names in (input_names, output_names)
    ]
    tensors = _vector(builder, [tensor], 4, builder.PrependUOffsetTRelative)
    told = None if config is None else builder.CreateString(config)
    builder.StartObject(4)
    if told is not None:
        builder.PrependUOffsetTRelativeSlot(0, told, 0)
    builder.PrependUOffsetTRelativeSlot(1, offsets[0], 0)
    builder.PrependUOffsetTRelativeSlot(2, tensors, 0)
    builder.PrependUOffsetTRelativeSlot(3, offsets[1], 0)
    infer = builder.EndObject()
    builder.StartObject(2)
    builder.PrependUint8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, infer, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def _vector(builder: Any, values: list[int], width: int, prepend: Any) -> int:
    builder.StartVector(width, len(values), width)
    for value in reversed(values):
        prepend(value)
    return int(builder.EndVector())


def frame_request(
    x: Any,
    *,
    model: str = "mlp",
    name: str = "x",
    version: str | None = None,
    outputs: tuple[str, ...] = (),
    exchange: int = 7,
) -> bytes:
    """A Kingpole frame, as our own client writes it."""
    from kingpole_client._messages import InferRequest

    request = InferRequest(model, {name: np.ascontiguousarray(x)}, outputs=outputs or None, version=version)
    buffers = request.buffers(exchange)
    return b"".join(bytes(buffer) for buffer in buffers)


# The bits of Huffman's code for what names of gRPC headers are made of.
# Source: RFC 7541, appendix B.
_HUFFMAN = {
    "0": "00000", "1": "00001", "2": "00010", "a": "00011", "c": "00100", "e": "00101", "i": "00110",
    "o": "00111", "s": "01000", "t": "01001", "-": "010110", "3": "011001", "4": "011010", "5": "011011",
    "6": "011100", "7": "011101", "8": "011110", "9": "011111", "g": "100110", "p": "101011", "r": "101100",
    "u": "101101",
}  # fmt: skip


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def http2_open() -> bytes:
    """The preface and empty settings."""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0, b"")


def grpc_head(path: str, headers: Mapping[str, str] | None = None, *, stream: int = 1) -> bytes:
    """The HEADERS frame of a gRPC call, without compression."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "test",
        "content-type": "application/grpc", "te": "trailers", **(headers or {}),
    }  # fmt: skip
    block = b"".join(
        b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return http2_frame(1, 4, stream, block)


def grpc_message(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def read_grpc_status(opened: socket.socket, stream: int = 1) -> int:
    """Read HTTP/2 frames until one that ends the stream, and give the `grpc-status` in it."""
    received = b""
    while True:
        while len(received) < 9:
            received += _receive(opened, received)
        length = int.from_bytes(received[:3], "big")
        kind, flags, number = received[3], received[4], int.from_bytes(received[5:9], "big")
        while len(received) < 9 + length:
            received += _receive(opened, received)
        payload, received = received[9 : 9 + length], received[9 + length :]
        assert kind not in (3, 7), f"the server reset the stream or left: {payload!r}"
        if kind == 1 and flags & 1 and number == stream:
            return _grpc_status(payload)


def _grpc_status(block: bytes) -> int:
    for status in range(17):
        if _literal("grpc-status") + _literal(str(status)) in block:
            return status
    raise AssertionError(f"no grpc-status in {block!r}")


def _literal(text: str) -> bytes:
    bits = "".join(_HUFFMAN[each] for each in text)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([0x80 | len(coded)]) + coded
