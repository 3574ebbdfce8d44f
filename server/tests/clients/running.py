"""A server of our own for the tests: its repository, its process, what its clients need to know."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

MAX_BODY_BYTES = 4 << 20
"""The test server's limit of a body: small enough to pass it quickly."""

_START_SECONDS = 60
_IDENTITY = """\
backend: identity
inputs:
  - {name: floats, datatype: FP32, shape: [-1, -1]}
  - {name: halves, datatype: FP16, shape: [-1, -1]}
  - {name: texts, datatype: BYTES, shape: [-1, -1]}
  - {name: counts, datatype: INT64, shape: [-1, -1]}
outputs:
  - {name: floats_out, datatype: FP32, shape: [-1, -1]}
  - {name: halves_out, datatype: FP16, shape: [-1, -1]}
  - {name: texts_out, datatype: BYTES, shape: [-1, -1]}
  - {name: counts_out, datatype: INT64, shape: [-1, -1]}
max_batch_size: 64
"""


_COUNT = """\
import time
import numpy as np
from kingpole.contract import ModelError

INPUTS = [("count", "INT32", [1])]
OUTPUTS = [("value", "INT32", [1])]

def infer(count, parameters):
    for value in range(int(count[0])):
        if value == parameters.get("fail_at"):
            raise ModelError("INTERNAL", f"cannot count beyond {value}")
        time.sleep(parameters.get("wait_us", 0) / 1e6)
        yield np.array([value], np.int32)
"""


@dataclass(frozen=True)
class Running:
    """A running server."""

    process: subprocess.Popen[str]
    host: str
    port: int
    log: list[str]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def resident_bytes(self) -> int:
        """Memory of the server's own process, without its workers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found, status
        return int(found.group(1)) * 1024


def write_repository(directory: Path, served: Any) -> Path:
    """Write the models that `served` describes."""
    for name, worker in ((served.MLP, "auto"), (served.WORKER_MLP, "shared")):
        write_mlp(directory / name / "1" / "model.onnx", served)
        (directory / name / "model.yaml").write_text(
            f"worker: {worker}\noutputs: [{{name: y, labels: labels.txt}}]\n", encoding="ascii"
        )
        (directory / name / "labels.txt").write_text("\n".join(served.LABELS), encoding="utf-8")
    (directory / served.COUNT / "1").mkdir(parents=True)
    (directory / served.COUNT / "1" / "model.py").write_text(_COUNT, encoding="ascii")
    (directory / served.IDENTITY).mkdir()
    (directory / served.IDENTITY / "model.yaml").write_text(_IDENTITY, encoding="ascii")
    return directory


def write_mlp(path: Path, served: Any) -> None:
    """Write the multilayer perceptron with the weights that `served` computes with."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["multiplied"]),
            helper.make_node("Add", ["multiplied", "bias"], ["added"]),
            helper.make_node("Relu", ["added"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "second"], ["y"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [
            numpy_helper.from_array(served.FIRST, "first"),
            numpy_helper.from_array(served.BIAS, "bias"),
            numpy_helper.from_array(served.SECOND, "second"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@contextmanager
def serving(repository: Path, default_model: str, *more: str) -> Iterator[Running]:
    """Start `kingpole serve` on a free port, wait until it says that it is ready, and stop it at the end."""
    command = [
        *(sys.executable, "-m", "kingpole", "serve", str(repository), "--listen", "127.0.0.1:0"),
        *("--management", "off", "--default-model", default_model, "--reactors", "2"),
        *("--max-body-bytes", str(MAX_BODY_BYTES), "--drain-seconds", "5"),
        "--client-shared-memory",
        *more,
    ]
    # An operator's own settings are not the tests'.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KINGPOLE_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    log: list[str] = []
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(process, log, lines))
    reader.start()
    try:
        host, port = _wait_ready(lines, log)
        yield Running(process, host, port, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        if process.stderr:
            process.stderr.close()
    assert process.returncode == 0, f"the server ended with {process.returncode}:\n" + "\n".join(log)


def _read(process: subprocess.Popen[str], log: list[str], lines: Queue[str | None]) -> None:
    """Keep reading, so that the server never waits for its log to be read."""
    assert process.stderr
    for line in process.stderr:
        log.append(line.rstrip())
        lines.put(line)
    lines.put(None)


def _wait_ready(lines: Queue[str | None], log: list[str]) -> tuple[str, int]:
    address: tuple[str, int] | None = None
    while True:
        try:
            line = lines.get(timeout=_START_SECONDS)
        except Empty:
            line = None
        if line is None or line.startswith("not ready"):
            raise RuntimeError("the server did not become ready:\n" + "\n".join(log))
        if found := re.search(r"listens on http://([\d.]+):(\d+)", line):
            address = found.group(1), int(found.group(2))
        if line.startswith("ready") and address:
            return address
