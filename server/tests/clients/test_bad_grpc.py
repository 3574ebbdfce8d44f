"""Bad input over gRPC, HTTP/2 and the frame stream: each gets its code and a text, and the server goes on."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from running import MAX_BODY_BYTES
from served import MLP, mlp, rows
from wire import (
    connect,
    field,
    frame_request,
    grpc_head,
    grpc_message,
    http2_frame,
    http2_open,
    protobuf_request,
    read_all,
    read_grpc_status,
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
FRAMES = "/kingpole.v1.Inference/Infer"
ONE = rows(1)
GOOD = protobuf_request(ONE)
FRAMED = frame_request(ONE)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@dataclass(frozen=True)
class Bad:
    """A message, and how it is refused."""

    says: str
    message: bytes
    names: tuple[str, ...]
    code: grpc.StatusCode = INVALID
    path: str = INFER


BAD = [
    Bad("a wrong shape", protobuf_request(np.zeros((1, 5), np.float32)), ("'x'", "[1,5]", "[-1,4]")),
    Bad("a wrong rank", protobuf_request(ONE, shape=(4,)), ("'x'", "[4]", "[-1,4]")),
    Bad("a negative dimension", protobuf_request(ONE, shape=(-1, 4)), ("'x'", "-1")),
    Bad("a shape whose product overflows", protobuf_request(ONE, shape=(2**62, 2**62)), ("'x'",)),
    Bad("too many dimensions", protobuf_request(ONE, shape=(1,) * 1000), ("'x'", "dimensions")),
    Bad("no datatype", protobuf_request(ONE, datatype=""), ("'x'",)),
    Bad("no shape", protobuf_request(ONE, shape=()), ("'x'", "[-1,4]")),
    Bad("no inputs", field(1, MLP), ("'x'", "missing")),
    Bad("an empty message", b"", ("'x'", "missing")),
    Bad(
        "typed contents beside raw ones",
        GOOD + field(5, field(1, "z") + field(2, "FP32") + field(3, b"\1") + field(5, field(6, bytes(4)))),
        ("raw_input_contents",),
    ),
    Bad("a wrong datatype", protobuf_request(ONE, datatype="INT32"), ("'x'", "INT32", "FP32")),
    Bad("an unknown datatype", protobuf_request(ONE, datatype="FP33"), ("'x'", "FP33")),
    Bad("a wrong byte count", protobuf_request(ONE, raw=[bytes(12)]), ("'x'", "12", "16")),
    Bad("more contents than tensors", protobuf_request(ONE, raw=[bytes(16)] * 2), ("2", "1")),
    Bad("no contents", protobuf_request(ONE, raw=[]), ("'x'",)),
    Bad("an unknown input", protobuf_request(ONE, name="z"), ("'z'", "'x'")),
    Bad("an unknown output", protobuf_request(ONE, more=field(6, field(1, "z"))), ("'z'", "'y'")),
    Bad("an unknown model", protobuf_request(ONE, model="nobody"), ("'nobody'",), NOT_FOUND),
    Bad("an unknown version", protobuf_request(ONE, version="7"), ("'7'", MLP), NOT_FOUND),
    Bad("a message that is text", b"model, please", ("protobuf",)),
    Bad("a message that is cut off", GOOD[:-3], ("protobuf",)),
    Bad("a message whose lengths lie", b"\x0a\xff\xff\xff\xff\x0f", ("protobuf",)),
    Bad("a number without end", b"\x08" + b"\xff" * 20, ("protobuf",)),
    Bad("groups nested without end", b"\xfb\x07" * 100_000, ("protobuf",)),
    Bad("a name that is not UTF-8", field(1, b"\xff\xfe"), ("UTF-8",)),
    Bad("a frame that is empty", b"", ("frame",), path=FRAMES),
    Bad("a frame that is text", b"model, please, and be quick", ("frame",), path=FRAMES),
    Bad("a frame that is cut off", FRAMED[:-64], ("frame",), path=FRAMES),
    Bad(
        "a frame whose flatbuffer is noise", FRAMED[:16] + b"\xff" * 48 + FRAMED[64:], ("frame",), path=FRAMES
    ),
    Bad("a frame for an unknown model", frame_request(ONE, model="nobody"), ("'nobody'",), NOT_FOUND, FRAMES),
    Bad(
        "an unknown method",
        b"",
        ("Nothing",),
        grpc.StatusCode.UNIMPLEMENTED,
        "/inference.GRPCInferenceService/Nothing",
    ),
    Bad(
        "metadata of an unknown model",
        field(1, "nobody"),
        ("'nobody'",),
        NOT_FOUND,
        "/inference.GRPCInferenceService/ModelMetadata",
    ),
    Bad(
        "a metadata request whose lengths lie",
        b"\x0a\xff",
        ("malformed", "ModelMetadataRequest"),
        path="/inference.GRPCInferenceService/ModelMetadata",
    ),
]


@pytest.fixture
def channel(address: tuple[str, int]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel("{}:{}".format(*address)) as opened:
        yield opened


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.says) for bad in BAD])
def test_a_bad_message_is_refused_with_its_code_and_a_text_that_names_the_thing(
    channel: grpc.Channel, bad: Bad
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(bad.path)(bad.message, timeout=30)
    assert raised.value.code() == bad.code, raised.value
    for name in bad.names:
        assert name in str(raised.value.details())


def test_a_good_message_is_answered_with_the_same_bytes_on_every_call(channel: grpc.Channel) -> None:
    for _ in range(3):
        assert mlp(ONE).tobytes() in channel.unary_unary(INFER)(GOOD, timeout=30)


def test_a_message_that_is_too_long_is_refused_by_size(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(INFER)(bytes(MAX_BODY_BYTES + 1), timeout=30)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, raised.value
    assert str(MAX_BODY_BYTES) in str(raised.value.details())


def call(address: tuple[str, int], body: bytes, headers: dict[str, str] | None = None) -> int:
    """Make a call with a body that no gRPC library would send, and give its status."""
    with connect(address) as opened:
        opened.sendall(http2_open() + grpc_head(INFER, headers) + http2_frame(0, 1, 1, body))
        return read_grpc_status(opened)


def test_a_length_announced_beyond_the_limit_is_refused_before_the_message(address: tuple[str, int]) -> None:
    with connect(address) as opened:
        # The message itself never comes, and the stream stays open.
        announced = b"\0" + struct.pack(">I", MAX_BODY_BYTES + 1)
        opened.sendall(http2_open() + grpc_head(INFER) + http2_frame(0, 0, 1, announced))
        assert read_grpc_status(opened) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


def test_a_deadline_of_0_has_passed(address: tuple[str, int]) -> None:
    status = call(address, grpc_message(GOOD), {"grpc-timeout": "0u"})
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@pytest.mark.parametrize("timeout", ["1", "-1S", "soon", "123456789S"])
def test_a_deadline_that_is_none_is_refused(address: tuple[str, int], timeout: str) -> None:
    assert call(address, grpc_message(GOOD), {"grpc-timeout": timeout}) == INVALID.value[0]


@pytest.mark.parametrize(
    ("body", "coding", "code"),
    [
        pytest.param(grpc_message(GOOD)[:-4], "identity", grpc.StatusCode.INVALID_ARGUMENT, id="cut off"),
        pytest.param(b"\0\0", "identity", grpc.StatusCode.INVALID_ARGUMENT, id="less than a length"),
        pytest.param(b"", "identity", grpc.StatusCode.INVALID_ARGUMENT, id="nothing"),
        pytest.param(
            b"\1" + grpc_message(GOOD)[1:],
            "gzip",
            grpc.StatusCode.INVALID_ARGUMENT,
            id="gzip that is not gzip",
        ),
        pytest.param(
            b"\1" + grpc_message(gzip.compress(bytes(64 << 20)))[1:][: (1 << 14) - 1],
            "gzip",
            grpc.StatusCode.INVALID_ARGUMENT,
            id="gzip that is cut off",
        ),
        pytest.param(grpc_message(GOOD), "snappy", grpc.StatusCode.UNIMPLEMENTED, id="an unknown coding"),
        pytest.param(
            b"\1" + grpc_message(GOOD)[1:],
            "identity",
            grpc.StatusCode.INTERNAL,
            id="compressed without a coding",
        ),
    ],
)
def test_a_message_that_is_packed_wrong_is_refused(
    address: tuple[str, int], body: bytes, coding: str, code: grpc.StatusCode
) -> None:
    assert call(address, body, {"grpc-encoding": coding}) == code.value[0]


def test_a_small_message_that_unpacks_beyond_the_limit_is_refused(address: tuple[str, int]) -> None:
    packed = gzip.compress(gzip.compress(bytes(8 << 20)) + bytes(8 << 20))
    assert len(packed) < 1 << 14, "one HTTP/2 frame"
    body = b"\1" + grpc_message(packed)[1:]
    assert call(address, body, {"grpc-encoding": "gzip"}) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.mark.parametrize(
    "sent", ["the preface", "the headers", "half of the message", "everything", "a reset"]
)
def test_a_client_that_leaves_a_call_disturbs_nobody(address: tuple[str, int], sent: str) -> None:
    message = grpc_message(GOOD)
    opening = http2_open() + grpc_head(INFER)
    bytes_sent = {
        "the preface": http2_open(),
        "the headers": opening,
        "half of the message": opening + http2_frame(0, 0, 1, message[: len(message) // 2]),
        "everything": opening + http2_frame(0, 1, 1, message),
        "a reset": opening + http2_frame(0, 1, 1, message) + http2_frame(3, 0, 1, struct.pack(">I", 8)),
    }[sent]
    for _ in range(50):
        with connect(address) as opened:
            opened.sendall(bytes_sent)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(http2_frame(1, 4, 1, b"\xff" * 64), id="headers that are noise"),
        pytest.param(http2_frame(0, 1, 1, b"data"), id="data of no stream"),
        pytest.param(b"\xff" * 64, id="a frame that is too long"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    ],
)
def test_http2_that_is_broken_ends_its_connection_only(address: tuple[str, int], garbage: bytes) -> None:
    with connect(address) as opened:
        opened.sendall(http2_open() + garbage)
        # Kind 7 is GOAWAY: the server says why before it closes.
        assert b"\x07\x00\x00\x00\x00\x00" in read_all(opened)


HEADER_BYTES = int.from_bytes(FRAMED[8:12], "little")


# What ends a stream is sent up to there: bytes that a server leaves unread when it closes can make the
# kernel throw its answer away.
@pytest.mark.parametrize(
    ("sent", "says"),
    [
        pytest.param(FRAMED[:-64], b"cut off", id="a frame that is cut off"),
        pytest.param(FRAMED[:7] + b"\x63" + FRAMED[8:16], b"version", id="another version"),
        pytest.param(FRAMED[:8] + b"\xff" * 8, b"header", id="lengths beyond every limit"),
        pytest.param(FRAMED[:16] + b"\xff" * HEADER_BYTES, b"frame", id="a flatbuffer of noise"),
        pytest.param(frame_request(ONE, model="nobody"), b"'nobody'", id="an unknown model"),
        pytest.param(frame_request(np.zeros((1, 5), np.float32)), b"[1,5]", id="a wrong shape"),
    ],
)
def test_a_bad_frame_on_a_stream_is_answered_with_an_error_frame(
    address: tuple[str, int], sent: bytes, says: bytes
) -> None:
    with connect(address) as opened:
        opened.sendall(sent)
        opened.shutdown(1)
        received = read_all(opened)
    assert received.startswith(b"KINGPOL")
    assert says in received


def test_an_exchange_that_is_in_flight_cannot_be_begun_again(address: tuple[str, int]) -> None:
    with connect(address) as opened:
        opened.sendall(FRAMED * 2)
        opened.shutdown(1)
        received = read_all(opened)
    assert mlp(ONE).tobytes() in received
    assert b"exchange 7 is already in flight" in received


def test_a_stream_answers_the_good_frame_after_a_refused_one(address: tuple[str, int]) -> None:
    with connect(address) as opened:
        opened.sendall(frame_request(ONE, model="nobody", exchange=8) + FRAMED)
        opened.shutdown(1)
        received = read_all(opened)
    assert b"'nobody'" in received
    assert mlp(ONE).tobytes() in received
