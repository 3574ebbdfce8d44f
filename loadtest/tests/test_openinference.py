from __future__ import annotations

import json

import pytest

from loadtest import openinference
from loadtest.openinference import MalformedError, RawTensor

# Field 1 "m", field 5 {1 "x", 2 "FP32", 3 packed [2, 300]}, field 7 raw bytes: by hand, from the guide.
_REQUEST = bytes.fromhex("0a016d" + "2a0e" + "0a0178" + "120446503332" + "1a0302ac02" + "3a0401020304")


def test_an_infer_request_is_encoded_as_the_encoding_guide_says() -> None:
    tensor = RawTensor("x", "FP32", (2, 300), b"\x01\x02\x03\x04")
    assert openinference.encode_infer_request("m", [tensor]) == _REQUEST


def test_a_response_is_decoded_whether_its_shape_is_packed_or_not() -> None:
    packed = bytes.fromhex("0a016d" + "2a0e" + "0a0179" + "120446503332" + "1a0302ac02" + "320401020304")
    loose = bytes.fromhex("0a016d" + "2a0e" + "0a0179" + "120446503332" + "1802" + "18ac02" + "320401020304")
    expected = [RawTensor("y", "FP32", (2, 300), b"\x01\x02\x03\x04")]
    assert openinference.decode_infer_response(packed) == expected
    assert openinference.decode_infer_response(loose) == expected


def test_fields_that_are_not_known_are_passed_over() -> None:
    unknown = bytes.fromhex("4801" + "510000000000000000" + "5d00000000")
    assert openinference.decode_infer_response(unknown) == []


@pytest.mark.parametrize("body", ["0a05", "0a", "08ff", "0f", "2a020a09"])
def test_broken_bytes_are_malformed(body: str) -> None:
    with pytest.raises(MalformedError):
        openinference.decode_infer_response(bytes.fromhex(body))


def test_outputs_without_their_contents_are_malformed() -> None:
    with pytest.raises(MalformedError, match="1 outputs but 0"):
        openinference.decode_infer_response(bytes.fromhex("2a030a0179"))


def test_a_grpc_frame_has_a_flag_and_a_big_endian_length() -> None:
    assert openinference.grpc_frame(b"abc") == b"\x00\x00\x00\x00\x03abc"


def test_a_json_request_divides_its_values_into_rows() -> None:
    assert json.loads(openinference.encode_json_request("x", 2, [1.0, 2.0, 3.0, 4.0])) == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}]
    }
