"""Asks the demo model over each core protocol, and shows how little each of them takes.

The three public protocols are spoken here by hand, with nothing but the standard library, grpcio's channel
and flatbuffers' builder, so that what arrives at the server owes nothing to this project's own client. The
fourth, the frame, goes through `kingpole_client`. Knows nothing of the server's code.
"""

import http.client
import json
from collections.abc import Iterator
from typing import ClassVar, Protocol

import flatbuffers
import flatbuffers.table
import grpc
import kingpole_client
import numpy as np
import numpy.typing as npt
from flatbuffers import number_types

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

MODEL = "efficientnet-lite0"
TIMEOUT_S = 30.0

# GraphPipe's tables are addressed by slot and byte offset; see the schema in protocol/schema.
GRAPHPIPE_INFER_REQUEST = 1
GRAPHPIPE_UINT8 = 1
GRAPHPIPE_FLOAT32 = 10


class UnexpectedError(Exception):
    """The server answered something else than probabilities; carries its words."""


class Asker(Protocol):
    """Asks one model over one protocol, on one connection."""

    name: ClassVar[str]

    def __init__(self, address: str) -> None: ...

    def ask(self, pixels: Pixels) -> Probabilities:
        """Send one request and return the probabilities; raises `UnexpectedError` with the server's words."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class RestAsker:
    """Open Inference REST, the binary-tensor extension: a JSON head, then the tensor's bytes."""

    name: ClassVar[str] = "Open Inference REST"

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def ask(self, pixels: Pixels) -> Probabilities:
        """Send one request and return the probabilities."""
        tensor = {
            "name": "image",
            "datatype": "UINT8",
            "shape": pixels.shape,
            "parameters": {"binary_data_size": pixels.nbytes},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {
            "Inference-Header-Content-Length": str(len(head)),
            "Content-Type": "application/octet-stream",
        }
        self.connection.request("POST", f"/v2/models/{MODEL}/infer", head + pixels.tobytes(), headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise UnexpectedError(body.decode(errors="replace"))
        head_bytes = int(response.headers["Inference-Header-Content-Length"])
        return np.frombuffer(body, "<f4", offset=head_bytes)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class GrpcAsker:
    """Open Inference gRPC: one `ModelInferRequest`, written field by field."""

    name: ClassVar[str] = "Open Inference gRPC"

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        # Messages pass as bytes: grpcio then does the transport and nothing else.
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)

    def ask(self, pixels: Pixels) -> Probabilities:
        """Send one request and return the probabilities."""
        shape = b"".join(varint(side) for side in pixels.shape)
        tensor = field(1, b"image") + field(2, b"UINT8") + field(3, shape)
        request = field(1, MODEL.encode()) + field(5, tensor) + field(7, pixels.tobytes())
        try:
            response = self.infer(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise UnexpectedError(str(error)) from error
        for number, value in fields(response):
            if number == 6:  # raw_output_contents
                return np.frombuffer(value, "<f4")
        raise UnexpectedError("the response has no raw_output_contents")

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()


class FrameAsker:
    """The Kingpole frame, through this project's client: a small header, and the tensor beside it."""

    name: ClassVar[str] = "Kingpole frame"

    def __init__(self, address: str) -> None:
        self.client = kingpole_client.connect(f"http://{address}")

    def ask(self, pixels: Pixels) -> Probabilities:
        """Send one request and return the probabilities."""
        try:
            response = self.client.infer(MODEL, {"image": pixels})
        except kingpole_client.KingpoleError as error:
            raise UnexpectedError(str(error)) from error
        return response.outputs["probs"]

    def close(self) -> None:
        """Close the client."""
        self.client.close()


class GraphPipeAsker:
    """GraphPipe: one flatbuffer, POSTed; the model is named by the path."""

    name: ClassVar[str] = "GraphPipe"

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def ask(self, pixels: Pixels) -> Probabilities:
        """Send one request and return the probabilities."""
        self.connection.request("POST", f"/{MODEL}", graphpipe_request(pixels))
        response = self.connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise UnexpectedError(body.decode(errors="replace"))
        return graphpipe_probabilities(body)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def varint(value: int) -> bytes:
    """Encode protobuf's variable-length integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the length-delimited fields of a message that has no others."""
    position = 0

    def read_varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = encoded[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(encoded):
        tag = read_varint()
        if tag & 7 != 2:
            raise UnexpectedError(f"the response has a field of wire type {tag & 7}")
        size = read_varint()
        yield tag >> 3, encoded[position : position + size]
        position += size


def graphpipe_request(pixels: Pixels) -> bytes:
    """Build `Request{InferRequest{input_names, input_tensors}}`."""
    builder = flatbuffers.Builder(pixels.nbytes + 256)
    data = builder.CreateNumpyVector(np.ascontiguousarray(pixels).reshape(-1))
    shape = builder.CreateNumpyVector(np.array(pixels.shape, "<i8"))
    input_name = builder.CreateString("image")
    builder.StartObject(4)  # Tensor
    builder.PrependUint8Slot(0, GRAPHPIPE_UINT8, 0)
    builder.PrependUOffsetTRelativeSlot(1, shape, 0)
    builder.PrependUOffsetTRelativeSlot(2, data, 0)
    tensor = builder.EndObject()
    vectors = []
    for element in (input_name, tensor):
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(element)
        vectors.append(builder.EndVector())
    builder.StartObject(4)  # InferRequest
    builder.PrependUOffsetTRelativeSlot(1, vectors[0], 0)
    builder.PrependUOffsetTRelativeSlot(2, vectors[1], 0)
    infer_request = builder.EndObject()
    builder.StartObject(2)  # Request
    builder.PrependUint8Slot(0, GRAPHPIPE_INFER_REQUEST, 0)
    builder.PrependUOffsetTRelativeSlot(1, infer_request, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def graphpipe_probabilities(body: bytes) -> Probabilities:
    """Read the first tensor of an `InferResponse`."""
    position = int.from_bytes(body[:4], "little")
    response = flatbuffers.table.Table(bytearray(body), position)
    tensors = response.Offset(4)
    if tensors == 0:
        raise UnexpectedError("the response has no output_tensors")
    tensor = flatbuffers.table.Table(response.Bytes, response.Indirect(response.Vector(tensors)))
    datatype = tensor.Get(number_types.Uint8Flags, tensor.Pos + tensor.Offset(4))
    if datatype != GRAPHPIPE_FLOAT32:
        raise UnexpectedError(f"the response's tensor is of type {datatype}")
    data = tensor.Offset(8)
    start, size = tensor.Vector(data), tensor.VectorLen(data)
    return np.frombuffer(body[start : start + size], "<f4")


ASKERS: tuple[type[Asker], ...] = (RestAsker, GrpcAsker, FrameAsker, GraphPipeAsker)
