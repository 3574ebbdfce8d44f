"""Locust users that ask a running server over REST and gRPC.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --headless -u 32 -r 32 -t 30s [RestUser]

The input is made from the model's own metadata, with random numbers, so any model with fixed inner
dimensions can be asked: set KINGPOLE_MODEL.

This is a closed loop: each user waits for its answer before it asks again. When the server slows down,
so does the load, and the slow spell is seen by few requests. It shows whether clients get along with the
server and how it behaves with many connections; it does not measure latency under a given load. For
that use the open-loop generator (`python -m loadtest.openloop`).
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import urlopen

# gRPC's own threads would never let gevent's other users run: this must come before the first channel.
import grpc
import grpc.experimental.gevent as grpc_gevent
import numpy as np
from locust import FastHttpUser, User, task
from locust.env import Environment
from locust.exception import LocustError, StopUser

grpc_gevent.init_gevent()

MODEL = os.environ.get("KINGPOLE_MODEL", "efficientnet-lite0")
ROWS = int(os.environ.get("KINGPOLE_ROWS", "1"))
TIMEOUT_S = 10.0
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
NUMPY_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8",
    "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


def made_inputs(metadata: dict[str, Any]) -> list[tuple[str, str, np.ndarray[Any, Any]]]:
    """Make one random array for each input that the metadata declares; -1 becomes `ROWS` or 1."""
    random = np.random.default_rng(1)
    inputs = []
    for declared in metadata["inputs"]:
        shape = [
            size if size >= 0 else (ROWS if axis == 0 else 1) for axis, size in enumerate(declared["shape"])
        ]
        if declared["datatype"] not in NUMPY_TYPES:
            raise LocustError(f"input '{declared['name']}' is {declared['datatype']}: no numbers")
        datatype = np.dtype(NUMPY_TYPES[declared["datatype"]])
        values = (random.random(shape) * (1 if datatype.kind == "f" else 255)).astype(datatype)
        inputs.append((declared["name"], declared["datatype"], values))
    return inputs


def rest_body(metadata: dict[str, Any]) -> tuple[bytes, int]:
    """Encode an Open Inference request with binary tensors; returns it and the length of its JSON head."""
    inputs = made_inputs(metadata)
    tensors = [
        {
            "name": name,
            "datatype": datatype,
            "shape": values.shape,
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, datatype, values in inputs
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(values.tobytes() for _, _, values in inputs), len(head)


def grpc_body(metadata: dict[str, Any]) -> bytes:
    """Encode a `ModelInferRequest`; by hand, so that the load needs no generated code."""
    inputs = made_inputs(metadata)
    request = field(1, MODEL.encode())
    for name, datatype, values in inputs:
        shape = b"".join(varint(size) for size in values.shape)
        request += field(5, field(1, name.encode()) + field(2, datatype.encode()) + field(3, shape))
    return request + b"".join(field(7, values.tobytes()) for _, _, values in inputs)


def varint(value: int) -> bytes:
    """Encode protobuf's variable-length integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


class ReportingInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Tells locust about each gRPC request, failures included; it cannot see them by itself."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: bytes
    ) -> Any:
        """Ask, wait for the answer, report."""
        started = time.perf_counter()
        call = continuation(client_call_details, request)
        failure = call.exception()
        self.environment.events.request.fire(
            request_type="gRPC",
            name=client_call_details.method,
            response_time=(time.perf_counter() - started) * 1e3,
            response_length=0 if failure else len(call.result()),
            exception=failure,
            context={},
            response=None if failure else call.result(),
        )
        return call


class RestUser(FastHttpUser):
    """Asks over Open Inference REST with binary tensors, on a connection of its own."""

    connection_timeout = TIMEOUT_S
    network_timeout = TIMEOUT_S

    def on_start(self) -> None:
        """Read the model's metadata and make the body once."""
        with self.client.get(f"/v2/models/{MODEL}", name="metadata", catch_response=True) as response:
            if response.status_code != 200:
                response.failure(response.text)
                raise StopUser
            self.body, head_bytes = rest_body(response.json())
        self.sent_headers = {"Inference-Header-Content-Length": str(head_bytes)}

    @task
    def infer(self) -> None:
        """Ask once."""
        self.client.post(f"/v2/models/{MODEL}/infer", data=self.body, headers=self.sent_headers, name="infer")


class GrpcUser(User):
    """Asks over Open Inference gRPC, on a channel of its own."""

    # Without this, all channels of a process to one address share one connection.
    channel_options: ClassVar = [("grpc.use_local_subchannel_pool", 1)]

    def on_start(self) -> None:
        """Read the model's metadata over REST, make the body once, and open the channel."""
        assert self.host is not None
        with urlopen(f"{self.host}/v2/models/{MODEL}", timeout=TIMEOUT_S) as response:
            self.body = grpc_body(json.load(response))
        channel = grpc.insecure_channel(urlsplit(self.host).netloc, options=self.channel_options)
        self.channel = grpc.intercept_channel(channel, ReportingInterceptor(self.environment))
        self.ask = self.channel.unary_unary(INFER_METHOD, None, None)

    def on_stop(self) -> None:
        """Close the channel."""
        self.channel.close()

    @task
    def infer(self) -> None:
        """Ask once; the interceptor reports, so a failure must not end the user."""
        try:
            self.ask(self.body, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return
