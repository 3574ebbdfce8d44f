"""Frames: vectors, pieces, and bytes of somebody who means us harm."""

import random

import flatbuffers
import numpy as np
import pytest
from frame_server import encode_error, encode_response
from kingpole_client import InferResponse, KingpoleError, NotFound, ResourceExhausted
from kingpole_client._frame import FrameAssembler, split_frame
from kingpole_client._messages import InferRequest, decode_answer, encode_cancel, exchange_of


def response_frame() -> bytes:
    inputs = {
        "x": np.arange(100, dtype=np.float32),
        "s": np.array(["a", "bc"]),
        "z": np.empty((0, 3), np.int8),
    }
    parameters = {"flag": True, "n": -5, "big": (1 << 64) - 1, "f": 0.5, "t": "", "u": "x"}
    request = InferRequest("m", inputs, id="7", parameters=parameters)
    frame = split_frame(memoryview(b"".join(request.buffers(9))))
    message = frame.header.table(1)
    assert message is not None
    return encode_response(message, frame.payloads, 9)


def check(answer: object) -> None:
    assert isinstance(answer, InferResponse)
    assert (answer.model, answer.version, answer.id) == ("m", "1", "7")
    assert answer.parameters == {"flag": True, "n": -5, "big": (1 << 64) - 1, "f": 0.5, "t": "", "u": "x"}
    np.testing.assert_array_equal(answer["x"], np.arange(100, dtype=np.float32))
    assert answer["s"].tolist() == [b"a", b"bc"]
    assert answer["z"].shape == (0, 3)


@pytest.mark.parametrize("piece_bytes", [1, 7, 63, 64, 65, 1 << 20])
def test_frames_are_found_in_pieces_of_any_size(piece_bytes):
    stream = response_frame() + encode_error(5, "gone", 3) + response_frame()
    assembler = FrameAssembler()
    frames = []
    for start in range(0, len(stream), piece_bytes):
        frames += assembler.feed(memoryview(stream[start : start + piece_bytes]))
    assert [exchange_of(frame) for frame in frames] == [9, 3, 9]
    assert assembler.idle
    check(decode_answer(frames[0]))
    error = decode_answer(frames[1])
    assert isinstance(error, NotFound)
    assert str(error) == "NOT_FOUND: gone"
    check(decode_answer(frames[2]))


def test_every_payload_starts_at_a_multiple_of_64_in_memory():
    [frame] = FrameAssembler().feed(memoryview(response_frame()))
    for payload in frame.payloads:
        assert not len(payload) or np.frombuffer(payload, np.uint8).ctypes.data % 64 == 0


def test_outputs_are_read_only_views_of_the_received_bytes():
    body = memoryview(response_frame())
    answer = decode_answer(split_frame(body))
    assert isinstance(answer, InferResponse)
    assert np.shares_memory(answer["x"], np.frombuffer(body, np.uint8))
    assert not answer["x"].flags.writeable


def test_a_frame_longer_than_the_limit_is_refused_before_memory_is_asked_for():
    with pytest.raises(ResourceExhausted):
        FrameAssembler(limit=256).feed(memoryview(response_frame()))
    with pytest.raises(ResourceExhausted):
        split_frame(memoryview(response_frame()), limit=256)


def test_a_frame_that_is_cut_or_has_more_is_refused():
    body = response_frame()
    for length in [*range(0, len(body), 5), len(body) - 1]:
        with pytest.raises(KingpoleError):
            split_frame(memoryview(body[:length]))
    with pytest.raises(KingpoleError):
        split_frame(memoryview(body + b"\0"))


def test_mutated_frames_give_a_value_or_a_kingpole_error():
    choose = random.Random(5)
    original, refused = response_frame(), 0
    for _ in range(20_000):
        body = bytearray(original)
        for _ in range(choose.randint(1, 4)):
            position = choose.randrange(16, 900)
            if choose.random() < 0.5:
                body[position] = choose.choice((0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)))
            else:
                body[position & ~3 : (position & ~3) + 4] = choose.randbytes(4)
        try:
            answer = decode_answer(split_frame(memoryview(bytes(body)), 1 << 20))
        except KingpoleError:
            refused += 1
        else:
            assert answer is not None
    assert refused > 1000, "the mutations reach what is checked"


def test_a_header_that_shares_its_tables_over_and_over_is_refused_quickly():
    from kingpole_client import _messages
    from kingpole_client._generated import kingpole_generated as fb

    builder = flatbuffers.Builder(1024)
    parameter = _messages._parameter(builder, "p", "v")
    # One parameter, named 40,000 times over in each of several outputs' tables.
    parameters = _messages._offsets(builder, [parameter] * 40_000)
    fb.ResponseStart(builder)
    fb.ResponseAddParameters(builder, parameters)
    fb.ResponseAddOutputs(builder, parameters)
    body = b"".join(_messages._finish(builder, fb.Message.Response, fb.ResponseEnd(builder), 1))
    with pytest.raises(KingpoleError):
        decode_answer(split_frame(memoryview(body)))


def test_a_message_of_a_client_is_not_an_answer():
    with pytest.raises(KingpoleError) as caught:
        decode_answer(split_frame(memoryview(b"".join(encode_cancel(4)))))
    assert caught.value.code == "UNIMPLEMENTED"
