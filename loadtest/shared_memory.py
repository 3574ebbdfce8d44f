"""What a request of large tensors costs the server, by the way that the tensors take.

    python -m loadtest.shared_memory --out DIR

One server, a model that only copies, and in each round every way once: gRPC (Open Inference), frames over a
Unix socket, and the same with the tensors in shared memory; also a named region, asked over REST. The ratios
are to gRPC in the same round. Closed loop.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from time import monotonic
from typing import Any

import kingpole_client
import numpy as np

from loadtest import machine, models
from loadtest.models import Array, BenchModel
from loadtest.peers.kingpole import Kingpole
from loadtest.percentiles import Spread
from loadtest.processes import Launch, RunningServer, tree_cpu_us
from loadtest.verify import Question

SIZES = {"0.6 MB": models.IMAGE_FEATURES, "16 MB": 4 << 20}
Ask = Callable[[], Callable[[], Array]]
"""Begins a request; what it returns waits for the answer."""


@contextmanager
def _grpc(model: BenchModel, port: int, _socket: str, _x: Array) -> Iterator[Ask]:
    import grpc

    message = Question.of(model, "grpc").body[5:]
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=limits) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask() -> Callable[[], Array]:
            future = call.future(message)
            # The output is the message's last field.
            return lambda: np.frombuffer(future.result()[-_x.nbytes :], np.float32).reshape(_x.shape)

        yield ask


def _frames(shared_memory: str | None, in_place: bool) -> Callable[..., Any]:
    @contextmanager
    def way(model: BenchModel, _port: int, socket: str, x: Array) -> Iterator[Ask]:
        with kingpole_client.connect(socket, shared_memory=shared_memory) as client:
            if in_place:
                mine = client.empty(x.shape, x.dtype)
                mine[...] = x
                x = mine

            def ask() -> Callable[[], Array]:
                pending = client.submit(model.name, {model.input_name: x})
                return lambda: pending.result()[model.output_name]

            yield ask

    return way


@contextmanager
def _region(model: BenchModel, port: int, _socket: str, x: Array) -> Iterator[Ask]:
    memory = SharedMemory(create=True, size=2 * x.nbytes)
    http_ = http.client.HTTPConnection("127.0.0.1", port)

    def post(path: str, body: dict[str, Any]) -> None:
        http_.request("POST", path, json.dumps(body))
        answer = http_.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {said.decode(errors='replace')}")

    def place(offset: int) -> dict[str, Any]:
        return {
            "shared_memory_region": "bench",
            "shared_memory_byte_size": x.nbytes,
            "shared_memory_offset": offset,
        }

    tensor = {"name": model.input_name, "datatype": "FP32", "shape": list(x.shape), "parameters": place(0)}
    output = {"name": model.output_name, "parameters": place(x.nbytes)}
    # Views of the memory keep it open: it is written and read as bytes.
    memory.buf[: x.nbytes] = x.tobytes()

    def answered() -> Array:
        copy = bytes(memory.buf[x.nbytes : 2 * x.nbytes])
        return np.frombuffer(copy, x.dtype).reshape(x.shape)

    try:
        region = "/v2/systemsharedmemory/region/bench"
        post(f"{region}/register", {"key": f"/{memory.name}", "byte_size": 2 * x.nbytes})

        def ask() -> Callable[[], Array]:
            post(f"/v2/models/{model.name}/infer", {"inputs": [tensor], "outputs": [output]})
            return answered

        yield ask
        post(f"{region}/unregister", {})
    finally:
        http_.close()
        memory.close()
        memory.unlink()


WAYS: dict[str, Callable[..., Any]] = {
    "gRPC": _grpc,
    "frames, Unix socket": _frames(None, False),
    "shared memory, copied in by the client": _frames("256MiB", False),
    "shared memory, in place": _frames("256MiB", True),
    "named region (REST, one in flight)": _region,
}


def measure(pid: int, ask: Ask, x: Array, in_flight: int, seconds: float) -> tuple[float, float]:
    """Keep requests in flight for some time; the server's CPU time per request and the rate.

    Raises:
        RuntimeError: An answer was not the input.
    """
    for _ in range(5):
        if not np.array_equal(ask()(), x):
            raise RuntimeError("an answer was not the input")
    waiting: deque[Callable[[], Array]] = deque()
    before, started, count = tree_cpu_us(pid), monotonic(), 0
    while monotonic() < started + seconds:
        waiting.append(ask())
        if len(waiting) >= in_flight:
            waiting.popleft()()
            count += 1
    while waiting:
        waiting.popleft()()
        count += 1
    return (tree_cpu_us(pid) - before) / count, count / (monotonic() - started)


def _rows(measured: dict[tuple[str, int, str], list[tuple[float, float]]]) -> Iterator[str]:
    yield "| tensors | in flight | way | server's CPU µs/req | ratio | req/s |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for (size, in_flight, way), rounds in measured.items():
        reference = measured[size, in_flight, "gRPC"]
        ratio = Spread.of([own[0] / other[0] for own, other in zip(rounds, reference, strict=True)])
        cpu, rate = (Spread.of([each[index] for each in rounds]) for index in (0, 1))
        yield f"| {size} | {in_flight} | {way} | {cpu.show()} | {ratio.show(2)}x | {rate.show()} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every way and write the table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.shared_memory", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the report")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    cores = sorted(os.sched_getaffinity(0))
    server_core, generator_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    environment = machine.describe(given, server_core, generator_core)
    environment["command"] = "python -m loadtest.shared_memory " + " ".join(given)
    # A path of this machine's says nothing to others.
    del environment["python"]
    if generator_core is not None:
        os.sched_setaffinity(0, {generator_core})
    measured: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    page = ["# Large tensors and shared memory", ""]
    page += [f"- {name}: {value}" for name, value in environment.items()]
    page += ["", "Medians of the rounds (least-greatest); ratios are to gRPC in the same round.", ""]
    for worker in ("inline", "shared"):
        measured = {}
        with tempfile.TemporaryDirectory(prefix="kingpole-bench-") as directory:
            for size, features in SIZES.items():
                file = Path(directory, f"{features}.onnx")
                models.make_identity(file, features)
                model = BenchModel("identity", file, "x", (features,), "y", (features,))
                peer = Kingpole(worker)
                launch = peer.launch(model, Path(directory, f"repository-{features}"))
                socket = f"unix:{directory}/{features}.sock"
                command = [*launch.command, "--listen", socket, "--client-shared-memory"]
                launch = Launch(command, launch.environment, launch.port, launch.ready_path)
                with RunningServer(launch, server_core, Path(directory, "log")) as server:
                    for _ in range(options.rounds):
                        for in_flight in (1, 4):
                            for way, use in WAYS.items():
                                if in_flight > 1 and use is _region:
                                    continue
                                x = model.example()
                                with use(model, peer.port, socket, x) as ask:
                                    cell = measure(server.pid, ask, x, in_flight, options.seconds)
                                measured.setdefault((size, in_flight, way), []).append(cell)
                                print(f"{worker}, {size}, {in_flight}, {way}: {cell[0]:.0f} µs", flush=True)
        page += [f"## The model runs {'on the reactor' if worker == 'inline' else 'in a worker'}", ""]
        page += [*_rows(measured), ""]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.md").write_text("\n".join(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
