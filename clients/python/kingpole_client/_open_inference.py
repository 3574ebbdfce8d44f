"""Inference as Open Inference over HTTP, for servers that take no frames. Opens no socket.

The client asks with a frame first. A server that does not know what that is says so before anything has
run, and is asked like this from then on: with binary tensors if it offers them, else as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kingpole_client import _arrays, _rest
from kingpole_client._frame import MEDIA_TYPE
from kingpole_client._http import HttpAnswer
from kingpole_client._messages import Buffers, InferRequest
from kingpole_client._values import InferResponse
from kingpole_client.errors import Internal, InvalidArgument

HEADER_LENGTH = "inference-header-content-length"
# What servers say to a path or a content type that they do not know.
_REFUSALS = (404, 405, 415, 501)
_BINARY_EXTENSIONS = ("binary_tensor_data", "binary_data")


class Asked(NamedTuple):
    """A request as it is posted."""

    path: str
    headers: Mapping[str, str]
    buffers: Buffers


def refuses_frames(answer: HttpAnswer) -> bool:
    """Return whether an answer to a frame says that the server knows no frames: it did not run anything."""
    return answer.status in _REFUSALS and not answer.headers.get("content-type", "").startswith(MEDIA_TYPE)


def choose(status: int, headers: Mapping[str, str], body: bytes) -> OpenInference:
    """Choose how to ask a server, from what it says of itself.

    Raises:
        KingpoleError: It speaks no Open Inference either.
    """
    metadata = _rest.read_server_metadata(status, headers, body)
    return OpenInference(is_binary=any(name in metadata.extensions for name in _BINARY_EXTENSIONS))


class OpenInference:
    """How one server is asked."""

    def __init__(self, *, is_binary: bool) -> None:
        self._is_binary = is_binary

    def encode(self, request: InferRequest) -> Asked:
        """Write a request. Tensors are sent from where they are if the server takes them as bytes.

        Raises:
            InvalidArgument: JSON cannot hold an input, and the server takes nothing else.
        """
        said = request.fields
        if not said.model:
            raise InvalidArgument("this server speaks Open Inference only, where a model must be named")
        parameters: dict[str, Any] = dict(said.parameters)
        if said.timeout_us is not None:
            parameters["timeout"] = said.timeout_us
        if said.priority:
            parameters["priority"] = said.priority
        if said.sequence is not None:
            sequence_id, starts, ends = said.sequence.id, said.sequence.start, said.sequence.end
            parameters |= {"sequence_id": sequence_id, "sequence_start": starts, "sequence_end": ends}
        outputs: list[dict[str, Any]] = [{"name": name} for name in said.outputs]
        if self._is_binary and not outputs:
            parameters["binary_data_output"] = True
        elif self._is_binary:
            outputs = [{**output, "parameters": {"binary_data": True}} for output in outputs]
        body: dict[str, Any] = {"inputs": [self._input(tensor) for tensor in said.tensors]}
        optional = {"id": said.id, "parameters": parameters, "outputs": outputs}
        body.update({name: value for name, value in optional.items() if value})
        path = _rest.infer_path(said.model, said.version)
        try:
            head = json.dumps(body, allow_nan=False).encode()
        except ValueError:
            raise InvalidArgument(
                "this server takes tensors as JSON, which has no NaN and no infinity"
            ) from None
        if not self._is_binary:
            return Asked(path, {"Content-Type": "application/json"}, [head])
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
        return Asked(path, headers, [head, *(tensor.data for tensor in said.tensors)])

    def _input(self, tensor: _arrays.EncodedTensor) -> dict[str, Any]:
        written: dict[str, Any] = {
            "name": tensor.name,
            "datatype": _arrays.DATATYPES[tensor.datatype],
            "shape": list(tensor.shape),
        }
        if self._is_binary:
            written["parameters"] = {"binary_data_size": tensor.data.nbytes}
        else:
            written["data"] = _as_json(tensor)
        return written


def _as_json(tensor: _arrays.EncodedTensor) -> list[Any]:
    array = _arrays.decode_tensor(tensor.name, tensor.datatype, tensor.shape, tensor.data)
    if tensor.datatype == _arrays.BF16:
        bits = array.view(np.uint16)
        array = _arrays.BFloat16(bits).to_float32()
    elements: list[Any] = array.ravel().tolist()
    if tensor.datatype != _arrays.BYTES:
        return elements
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"input '{tensor.name}': this server takes tensors as JSON, and an element is not UTF-8"
        ) from None


def decode(answer: HttpAnswer) -> InferResponse:
    """Read the answer to what `OpenInference.encode` made; binary outputs are views of it.

    Raises:
        KingpoleError: The server's error, or `Internal` for an answer that makes no sense.
    """
    if answer.status != 200:
        raise _rest.error_of_answer(answer.status, answer.headers, bytes(answer.body[:8192]))
    head, binary = answer.body, answer.body[:0]
    if length := answer.headers.get(HEADER_LENGTH):
        if not (length.isascii() and length.isdigit() and len(length) < 18 and int(length) <= len(head)):
            raise Internal(f"{HEADER_LENGTH} is {length[:40]!r}, the answer has {len(head)} bytes")
        head, binary = head[: int(length)], head[int(length) :]
    try:
        document = json.loads(bytes(head))
        outputs: dict[str, Any] = {}
        for output in document.get("outputs", ()):
            name, nbytes = str(output["name"]), (output.get("parameters") or {}).get("binary_data_size")
            if name in outputs:
                raise Internal(f"output '{name}' is there twice")
            data: memoryview | None = None
            if nbytes is not None:
                if not isinstance(nbytes, int) or not 0 <= nbytes <= len(binary):
                    raise Internal(
                        f"output '{name}': binary_data_size {nbytes!r} passes the end of the answer"
                    )
                data, binary = binary[:nbytes], binary[nbytes:]
            outputs[name] = _output(name, output, data)
        parameters = {
            name: value
            for name, value in (document.get("parameters") or {}).items()
            if isinstance(value, (bool, int, float, str))
        }
        version, id_ = document.get("model_version"), document.get("id")
        return InferResponse(
            str(document.get("model_name") or ""),
            "" if version is None else str(version),
            None if id_ is None else str(id_),
            outputs,
            parameters,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Internal(f"the server's answer cannot be read: {error!r}") from None


def _output(name: str, output: Mapping[str, Any], data: memoryview | None) -> Any:
    if output["datatype"] not in _arrays.DATATYPES[1:]:
        raise Internal(f"output '{name}': unknown datatype {str(output['datatype'])[:40]!r}")
    datatype = _arrays.DATATYPES.index(output["datatype"])
    shape = tuple(int(size) for size in output["shape"])
    if data is None:
        data = _from_json(datatype, output["data"])
    return _arrays.decode_tensor(name, datatype, shape, data)


def _from_json(datatype: int, data: Any) -> memoryview:
    """Elements as JSON, flat or nested, to the bytes that they would have been."""
    if datatype == _arrays.BYTES:
        texts = np.array(data, dtype=object)
        if not all(isinstance(text, str) for text in texts.ravel().tolist()):
            raise TypeError("an element of BYTES is not a string")
        return _arrays.encode_tensor("", texts).data
    array = np.array(data, dtype=_arrays.dtype_of(datatype))
    return _arrays.encode_tensor(
        "", _arrays.BFloat16.from_float32(array) if datatype == _arrays.BF16 else array
    ).data
