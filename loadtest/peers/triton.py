"""Triton: the tritonserver binary inside the nvidia-pytriton wheel, without pytriton.

ONNX Runtime runs in Triton's Python backend, since the wheel carries no other. Its
gRPC and HTTP front, its batcher and its statistics are the ones every Triton has.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
from pathlib import Path

from loadtest.models import MAX_BATCH_SIZE, BenchModel
from loadtest.peers.peer import PEER_DIRECTORY, Batches, Transport
from loadtest.processes import Launch, free_port

CPU_FACTOR_OF_CPP_BACKEND = 1.25
"""CPU per request of ONNX Runtime in the Python backend over that in Triton's C++ backend.

Measured once, at 32 and 128 requests in flight, against a 2.51 with the C++ backend.
"""

_CONFIGURATION = """backend: "python"
max_batch_size: {max_batch_size}
input [{{ name: "{input_name}" data_type: TYPE_FP32 dims: {input_dims} }}]
output [{{ name: "{output_name}" data_type: TYPE_FP32 dims: {output_dims} }}]
dynamic_batching {{}}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


class Triton:
    """Triton with its default batching: no queue delay, batches of what waits."""

    name = "triton"

    def __init__(self) -> None:
        self._environment = PEER_DIRECTORY / "triton"
        self._http_port = 0
        self._grpc_port = 0

    def missing(self) -> str | None:
        """Name what must be installed first."""
        if (self._environment / "ready").exists():
            return None
        return "Triton is not set up; run: sh loadtest/peers/setup.sh"

    def transport(self, wanted: Transport) -> Transport | None:
        """Everything but raw bytes."""
        return None if wanted == "raw" else wanted

    def launch(self, model: BenchModel, directory: Path) -> Launch:
        """Lay out a model repository with the Python backend."""
        version = directory / model.name / "1"
        version.mkdir(parents=True)
        shutil.copy(model.file, version / "model.onnx")
        shutil.copy(Path(__file__).parent / "services" / "triton_model.py", version / "model.py")
        (directory / model.name / "config.pbtxt").write_text(
            _CONFIGURATION.format(
                max_batch_size=MAX_BATCH_SIZE,
                input_name=model.input_name,
                input_dims=list(model.input_shape),
                output_name=model.output_name,
                output_dims=list(model.output_shape),
            )
        )
        self._http_port, self._grpc_port, metrics_port = free_port(), free_port(), free_port()
        server = self._environment / "tritonserver"
        libraries = (self._environment / "library_path").read_text().strip()
        command = [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={directory}",
            f"--backend-directory={server / 'backends'}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            f"--http-port={self._http_port}",
            f"--grpc-port={self._grpc_port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={metrics_port}",
        ]
        environment = {
            "LD_LIBRARY_PATH": libraries,
            "PATH": f"{self._environment / 'venv' / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": "",
        }
        return Launch(command, environment, self._http_port, "/v2/health/ready")

    def url(self, model: BenchModel, transport: Transport) -> str:
        """Tell where requests go."""
        if transport == "grpc":
            return f"http://127.0.0.1:{self._grpc_port}/inference.GRPCInferenceService/ModelInfer"
        return f"http://127.0.0.1:{self._http_port}/v2/models/{model.name}/infer"

    def batches(self, model: BenchModel) -> Batches | None:
        """Ask the statistics extension."""
        return open_inference_batches(self._http_port, model)


def open_inference_batches(port: int, model: BenchModel) -> Batches | None:
    """Read the rows and executions of a model from the statistics extension over REST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/v2/models/{model.name}/stats")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return None
        statistics = json.loads(body)["model_stats"][0]
        return Batches(float(statistics["inference_count"]), float(statistics["execution_count"]))
    finally:
        connection.close()
