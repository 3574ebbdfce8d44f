"""Asks a server once, with a client of its own, and compares the answer with ONNX Runtime's.

Load generators count bytes and status codes; whether those bytes are the right answer is
known only from here.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import numpy as np

from loadtest import openinference
from loadtest.models import Array, BenchModel
from loadtest.peers.peer import Transport

_TIMEOUT_S = 30
_TOLERANCE = 1e-4
_GRPC_PREFIX_BYTES = 5
_MAX_MESSAGE_BYTES = 64 << 20

CONTENT_TYPES: dict[Transport, str] = {
    "grpc": "application/grpc",
    "json": "application/json",
    "raw": "application/octet-stream",
}


class WrongAnswerError(RuntimeError):
    """A server answered with something other than the model's output."""


@dataclass(frozen=True)
class Question:
    """One request in the bytes of its transport."""

    transport: Transport
    body: bytes

    @classmethod
    def of(cls, model: BenchModel, transport: Transport) -> Question:
        """Encode the model's example."""
        example = model.example()
        if transport == "raw":
            return cls(transport, example.tobytes())
        if transport == "json":
            return cls(
                transport,
                openinference.encode_json_request(model.input_name, len(example), example.ravel().tolist()),
            )
        tensor = openinference.RawTensor(model.input_name, "FP32", example.shape, example.tobytes())
        return cls(
            transport, openinference.grpc_frame(openinference.encode_infer_request(model.name, [tensor]))
        )


def ask(url: str, question: Question) -> bytes:
    """Send one request and return the body of its answer, without gRPC's prefix.

    Raises:
        WrongAnswerError: The server answered with an error.
    """
    parts = urlsplit(url)
    if question.transport == "grpc":
        options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        with grpc.insecure_channel(parts.netloc, options) as channel:
            try:
                answer: bytes = channel.unary_unary(parts.path)(
                    question.body[_GRPC_PREFIX_BYTES:], timeout=_TIMEOUT_S, wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise WrongAnswerError(f"{url}: {error}") from error
            return answer
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    try:
        headers = {"content-type": CONTENT_TYPES[question.transport]}
        connection.request("POST", parts.path, question.body, headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise WrongAnswerError(f"{url}: {response.status} {body[:300]!r}")
    return body


def read_output(answer: bytes, transport: Transport) -> Array:
    """Decode the only output of an answer, flattened.

    Raises:
        WrongAnswerError: There is not exactly one FP32 output.
    """
    if transport == "raw":
        return np.frombuffer(answer, np.float32)
    if transport == "json":
        outputs = json.loads(answer)["outputs"]
        if len(outputs) != 1 or outputs[0]["datatype"] != "FP32":
            raise WrongAnswerError(f"not one FP32 output: {answer[:300]!r}")
        return np.asarray(outputs[0]["data"], np.float32).ravel()
    tensors = openinference.decode_infer_response(answer)
    if len(tensors) != 1 or tensors[0].datatype != "FP32":
        raise WrongAnswerError(f"not one FP32 output: {answer[:300]!r}")
    return np.frombuffer(tensors[0].data, np.float32)


def verified_body_bytes(url: str, question: Question, reference: Array) -> int:
    """Ask once, compare with the reference and return the size of a right answer on the wire.

    Raises:
        WrongAnswerError: The answer is an error or differs from the reference.
    """
    answer = ask(url, question)
    output = read_output(answer, question.transport)
    if output.shape != reference.ravel().shape or not np.allclose(output, reference.ravel(), atol=_TOLERANCE):
        raise WrongAnswerError(f"{url}: the output differs from ONNX Runtime's in this process")
    return len(answer) + (_GRPC_PREFIX_BYTES if question.transport == "grpc" else 0)


def check_body_bytes(loaded_bytes: int, succeeded: int, expected: int, in_flight: int) -> None:
    """Check that the bytes a load generator received are those of `succeeded` right answers.

    Requests still in flight when the clock stopped may have sent part of their answers.

    Raises:
        WrongAnswerError: Too few bytes (errors in place of answers) or too many.
    """
    slack = expected * in_flight
    if succeeded == 0 or abs(loaded_bytes - succeeded * expected) > slack:
        raise WrongAnswerError(
            f"{succeeded} answers of {expected} bytes are {succeeded * expected} bytes, got {loaded_bytes}"
        )
