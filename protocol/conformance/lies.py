"""Answers that no honest server gives: frames that are cut, garbled, or say what is not so.

Every one of them must end a request with an error, whatever reads it. Knows no transport: a lie is a function
from the exchange to answer to the bytes to send. Made with flatbuffers' builder, so that all but the lie is
well-formed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flatbuffers
from kingpole_client._generated import kingpole_generated as fb

MAGIC = b"KINGPOL\x01"
FP32, BYTES = fb.Datatype.FP32, fb.Datatype.BYTES
_ALIGNMENT = 64
_PAYLOAD = struct.pack("<4f", 1, 2, 3, 4)
_MOST = (1 << 64) - 1


class Lie(NamedTuple):
    """One bad answer, by exchange."""

    name: str
    make: Callable[[int], bytes]
    on_streams_only: bool = False
    """Over HTTP, where the exchange means nothing, it would be a good answer."""


def framed(
    header: bytes, payloads: Sequence[bytes] = (), *, count: int | None = None, length: int | None = None
) -> bytes:
    """Lay out a frame; `count` and `length` are what its prelude says instead of the truth."""
    said_length = len(header) if length is None else length
    said_count = len(payloads) if count is None else count
    data = MAGIC + struct.pack("<II", said_length, said_count) + header
    for payload in payloads:
        data += bytes(-len(data) % _ALIGNMENT) + payload
    return data + bytes(-len(data) % _ALIGNMENT)


def _vector(builder: flatbuffers.Builder, numbers: Sequence[int], prepend: Callable[[int], None]) -> int:
    builder.StartVector(8, len(numbers), 8)
    for number in reversed(numbers):
        prepend(number)
    return int(builder.EndVector())


def _header(
    builder: flatbuffers.Builder, kind: int, message: int, exchange: int, lengths: Sequence[int]
) -> bytes:
    payloads = _vector(builder, lengths, builder.PrependUint64) if lengths else 0
    fb.HeaderStart(builder)
    fb.HeaderAddMessageType(builder, kind)
    if message:
        fb.HeaderAddMessage(builder, message)
    fb.HeaderAddExchange(builder, exchange)
    if payloads:
        fb.HeaderAddPayloads(builder, payloads)
    builder.Finish(fb.HeaderEnd(builder))
    return bytes(builder.Output())


def response_header(
    exchange: int,
    *,
    datatype: int = FP32,
    shape: Sequence[int] = (1, 4),
    location: int = 0,
    index: int = 0,
    offset: int = 0,
    nbytes: int = len(_PAYLOAD),
    lengths: Sequence[int] = (len(_PAYLOAD),),
    model: str | bytes = "echo-fp32",
    stage: int = 0,
) -> bytes:
    """Write the header of a response with one output `x`; the defaults make an honest one."""
    builder = flatbuffers.Builder(512)
    name = builder.CreateString("x")
    dimensions = _vector(builder, shape, builder.PrependInt64)
    fb.TensorStart(builder)
    fb.TensorAddName(builder, name)
    fb.TensorAddDatatype(builder, datatype)
    fb.TensorAddShape(builder, dimensions)
    fb.TensorAddLocation(builder, location)
    fb.TensorAddPayload(builder, index)
    fb.TensorAddOffset(builder, offset)
    fb.TensorAddNbytes(builder, nbytes)
    tensor = fb.TensorEnd(builder)
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(tensor)
    outputs = builder.EndVector()
    names = builder.CreateString(model), builder.CreateString("1")
    fb.ResponseStart(builder)
    fb.ResponseAddModel(builder, names[0])
    fb.ResponseAddVersion(builder, names[1])
    fb.ResponseAddOutputs(builder, outputs)
    fb.ResponseAddStage(builder, stage)
    return _header(builder, fb.Message.Response, fb.ResponseEnd(builder), exchange, lengths)


def error_frame(exchange: int, code: int, text: str) -> bytes:
    """Make an Error message."""
    builder = flatbuffers.Builder(128)
    message = builder.CreateString(text)
    fb.ErrorStart(builder)
    fb.ErrorAddCode(builder, code)
    fb.ErrorAddMessage(builder, message)
    return framed(_header(builder, fb.Message.Error, fb.ErrorEnd(builder), exchange, ()))


def credit_frame(requests: int, exchange: int = 0) -> bytes:
    """Make a Credit message; with the exchange of a cancelled request it is in place of that one's answer."""
    builder = flatbuffers.Builder(64)
    fb.CreditStart(builder)
    fb.CreditAddRequests(builder, requests)
    return framed(_header(builder, fb.Message.Credit, fb.CreditEnd(builder), exchange, ()))


def response_frame(exchange: int, payload: bytes = _PAYLOAD, **said: object) -> bytes:
    """Make a response; `said` is what is not so in it."""
    return framed(response_header(exchange, **said), [payload])  # type: ignore[arg-type]  # passed on as they came


def _ready(exchange: int, kind: int, *, absent: bool = False) -> bytes:
    builder = flatbuffers.Builder(64)
    fb.ReadyStart(builder)
    fb.ReadyAddReady(builder, True)
    message = 0 if absent else fb.ReadyEnd(builder)
    if absent:
        builder = flatbuffers.Builder(64)
    return framed(_header(builder, kind, message, exchange, ()))


def _said(name: str, payload: bytes = _PAYLOAD, **said: object) -> Lie:
    return Lie(name, lambda exchange: response_frame(exchange, payload, **said))


def _cut(name: str, keep: Callable[[bytes], int]) -> Lie:
    def make(exchange: int) -> bytes:
        whole = response_frame(exchange)
        return whole[: keep(whole)]

    return Lie(name, make)


def _lone_header(name: str, header: bytes, length: int | None = None) -> Lie:
    return Lie(name, lambda _exchange: framed(header, length=length))


def _garbled(exchange: int) -> bytes:
    """Point the root's table behind the end: everything else is as it should be."""
    header = response_header(exchange)
    return framed(struct.pack("<I", len(header) - 2) + header[4:], [_PAYLOAD])


CUTS = (
    _cut("cut within the prelude", lambda whole: 9),
    _cut("cut within the header", lambda whole: 40),
    _cut("cut within the payload", lambda whole: len(whole) - 60),
)
"""Followed by the end of the connection: a stream would wait for the rest."""

LIES = (
    Lie("no frame", lambda _: b"HTTP/1.1 200 OK, or is it? " * 8),
    Lie("version 2", lambda exchange: b"KINGPOL\x02" + response_frame(exchange)[8:]),
    _lone_header("a header of 4 GiB", b"", length=(1 << 32) - 1),
    _lone_header("a header of more than 262144 bytes", bytes(300_000), length=262_145),
    _lone_header("an empty header", b""),
    _lone_header("a header of zeros", bytes(96)),
    _lone_header("a header of ones", b"\xff" * 96),
    Lie("a root behind the header's end", _garbled),
    Lie("4 billion payloads", lambda exchange: framed(
        response_header(exchange), [_PAYLOAD], count=(1 << 32) - 1)),
    Lie("5 payloads of 1", lambda exchange: framed(response_header(exchange), [_PAYLOAD], count=5)),
    _said("a payload of 1 TiB", lengths=[1 << 40]),
    _said("a payload of all bytes there are", lengths=[_MOST]),
    Lie("two payloads whose sum passes 64 bits", lambda exchange: framed(
        response_header(exchange, lengths=[1 << 63, 1 << 63]), [_PAYLOAD, _PAYLOAD])),
    Lie("a payload of 17 MiB", lambda exchange: framed(
        response_header(exchange, lengths=[17 << 20], nbytes=17 << 20, shape=(17 << 18,)),
        [bytes(17 << 20)])),
    _said("payload 7 of 1", index=7),
    _said("an offset behind the payload", offset=1 << 63),
    _said("an end that passes 64 bits", offset=16, nbytes=_MOST - 15),
    _said("more bytes than the payload has", nbytes=1 << 40),
    _said("a shape whose product passes 64 bits", shape=(1 << 62, 1 << 62)),
    _said("a shape below 0", shape=(-1, -4)),
    _said("a shape of other bytes", shape=(1, 5)),
    _said("40 dimensions", shape=(1,) * 39 + (4,)),
    _said("no datatype", datatype=0),
    _said("datatype 99", datatype=99),
    _said("an element of 4 GiB", b"\xff\xff\xff\xff" + b"abcdefghijkl", datatype=BYTES, shape=(1,)),
    _said("a thousand million elements", datatype=BYTES, shape=(1_000_000_000,)),
    _said("an arena that was never handed over", location=1, index=3),
    _said("a name that is not UTF-8", model=b"\xff\xfe\xfd"),
    _said("one of several responses", stage=1),
    Lie("another message", lambda exchange: _ready(exchange, fb.Message.Ready)),
    Lie("an unknown message", lambda exchange: _ready(exchange, 200)),
    Lie("no message", lambda exchange: _ready(exchange, fb.Message.Response, absent=True)),
    Lie("an error of an unknown code", lambda exchange: error_frame(exchange, 77, "what is 77?")),
    Lie("an error of the stream", lambda _: error_frame(0, 13, "the stream cannot go on")),
    Lie("the answer to another", lambda exchange: response_frame(exchange + 1000), on_streams_only=True),
)  # fmt: skip
"""Whole frames, in one piece."""
