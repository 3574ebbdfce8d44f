"""`run bench URL`: what a request costs this client, beside gRPC's plain stubs and the bare transport.

One JSON object a line, as protocol/conformance/README.md says. Knows no other client.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import kingpole_client
import numpy as np
import numpy.typing as npt
from kingpole_client import _messages

Floats = npt.NDArray[np.float32]
MODEL = "echo-fp32"
SCHEMA = Path(__file__).resolve().parents[3] / "protocol" / "schema" / "open_inference.proto"
# Elements, and requests in each of the blocks.
SIZES = ((4, 200), (1_000, 200), (250_000, 40), (2_500_000, 8))
BLOCKS = 5
WARM_UP = 5
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Ask = Callable[[Floats], Floats]


def contenders(url: str, open_files: contextlib.ExitStack) -> Iterator[tuple[str, Callable[[Floats], Ask]]]:
    """Give each contender's name, and how to make its question for one tensor."""
    client = open_files.enter_context(kingpole_client.connect(url))
    yield "kingpole", lambda _: lambda x: client.infer(MODEL, {"x": x})["x"]
    scheme, _, authority = url.partition("://")
    if scheme == "http":
        yield "floor", lambda x: _posted(authority, x, open_files)
        return
    channel = open_files.enter_context(grpc.insecure_channel(authority, UNLIMITED))
    yield "stubs", lambda _: _stubs(channel, open_files)
    yield "floor", lambda x: _called(channel, x)


def _frame(x: Floats) -> bytes:
    return b"".join(_messages.InferRequest(MODEL, {"x": x}).buffers(1))


def _posted(authority: str, x: Floats, open_files: contextlib.ExitStack) -> Ask:
    """Post the same bytes each time, with the standard library."""
    connection = open_files.enter_context(contextlib.closing(http.client.HTTPConnection(authority)))
    body, headers = _frame(x), {"Content-Type": "application/x-kingpole"}

    def ask(x: Floats) -> Floats:
        connection.request("POST", "/v1/infer", body, headers)
        _check(len(connection.getresponse().read()), x)
        return x

    return ask


def _called(channel: Any, x: Floats) -> Ask:
    """Call with the same bytes each time."""
    method, body = channel.unary_unary("/kingpole.v1.Inference/Infer"), _frame(x)

    def ask(x: Floats) -> Floats:
        _check(len(method(body)), x)
        return x

    return ask


def _check(nbytes: int, x: Floats) -> None:
    if nbytes < x.nbytes:
        raise SystemExit(f"an answer of {nbytes} bytes to {x.nbytes}")


def _stubs(channel: Any, open_files: contextlib.ExitStack) -> Ask:
    """Generate Open Inference's stubs, and use them as its documents do: raw bytes, and numpy at the end."""
    protoc: Any = importlib.import_module("grpc_tools.protoc")  # ships no types

    folder = open_files.enter_context(tempfile.TemporaryDirectory(prefix="kingpole-stubs-"))
    if "open_inference_pb2" not in sys.modules:
        arguments = [
            f"-I{SCHEMA.parent}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            str(SCHEMA),
        ]
        if protoc.main(["protoc", *arguments]):
            raise SystemExit("protoc could not read open_inference.proto")
        sys.path.insert(0, folder)
    messages = importlib.import_module("open_inference_pb2")
    stub = importlib.import_module("open_inference_pb2_grpc").GRPCInferenceServiceStub(channel)

    def ask(x: Floats) -> Floats:
        request = messages.ModelInferRequest(model_name=MODEL)
        tensor = request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        del tensor
        request.raw_input_contents.append(x.tobytes())
        answer = stub.ModelInfer(request)
        found: Floats = np.frombuffer(answer.raw_output_contents[0], np.float32)
        return found.reshape(answer.outputs[0].shape)

    return ask


def measure(ask: Ask, x: Floats, requests: int) -> tuple[float, list[int]]:
    """Ask some times; returns the CPU time in microseconds, and each latency."""
    latencies_us = []
    found = x
    cpu_ns = time.process_time_ns()
    for _ in range(requests):
        started_ns = time.perf_counter_ns()
        found = ask(x)
        latencies_us.append((time.perf_counter_ns() - started_ns) // 1000)
    cpu_us = (time.process_time_ns() - cpu_ns) / 1000
    if found.shape != x.shape or found.flat[-1] != x.flat[-1]:
        raise SystemExit(f"asked with {x.shape}, got {found.shape}")
    return cpu_us, latencies_us


def rank(ordered: Sequence[int], fraction: float) -> int:
    """Return the nearest-rank percentile of an ascending sample."""
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def main(url: str) -> None:
    """Measure and print; the contenders take turns in blocks."""
    with contextlib.ExitStack() as open_files:
        made = list(contenders(url, open_files))
        for elements, requests in SIZES:
            x = np.arange(elements, dtype=np.float32).reshape(1, -1)
            asks = [(name, make(x)) for name, make in made]
            for _, ask in asks:
                measure(ask, x, WARM_UP)
            cpu_us = dict.fromkeys((name for name, _ in asks), 0.0)
            latencies_us: dict[str, list[int]] = {name: [] for name in cpu_us}
            for _ in range(BLOCKS):
                for name, ask in asks:
                    used_us, block_us = measure(ask, x, requests)
                    cpu_us[name] += used_us
                    latencies_us[name] += block_us
            for name, taken_us in latencies_us.items():
                taken_us.sort()
                row = {
                    "contender": name, "bytes": x.nbytes, "requests": len(taken_us),
                    "cpu_us": round(cpu_us[name] / len(taken_us), 1),
                    "p50_us": rank(taken_us, 0.5), "p99_us": rank(taken_us, 0.99),
                }  # fmt: skip
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
