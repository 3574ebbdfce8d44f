"""The models under load: generated at set-up, the same file for every server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from loadtest.processes import REPOSITORY_ROOT

Array = npt.NDArray[np.float32]

TINY_FEATURES = 16
IMAGE_FEATURES = 150_528  # 3 x 224 x 224, 0.6 MB of float32
JSON_FEATURES = 1_000
MAX_BATCH_SIZE = 32


@dataclass(frozen=True)
class BenchModel:
    """An ONNX model with one float32 input and one float32 output, batched along dimension 0."""

    name: str
    file: Path
    input_name: str
    input_shape: tuple[int, ...]  # of one row, without the batch dimension
    output_name: str
    output_shape: tuple[int, ...]

    def example(self) -> Array:
        """Make one row of input; the same one each time, and with no value that repeats much."""
        generator = np.random.default_rng(7)
        return generator.random((1, *self.input_shape), dtype=np.float32)

    def reference(self) -> Array:
        """Run the example through ONNX Runtime in this process."""
        session = onnxruntime.InferenceSession(str(self.file), providers=["CPUExecutionProvider"])
        output: Array = session.run([self.output_name], {self.input_name: self.example()})[0]
        return output


def _save(file: Path, graph: onnx.GraphProto) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _values(features: int) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    return (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", features]),
    )


def make_tiny(file: Path) -> None:
    """Write a two-layer perceptron of 16 features: a model that costs less than any server around it."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in (
            ("w0", generator.standard_normal((TINY_FEATURES, TINY_FEATURES)) / 4),
            ("b0", generator.standard_normal(TINY_FEATURES)),
            ("w1", generator.standard_normal((TINY_FEATURES, TINY_FEATURES)) / 4),
            ("b1", generator.standard_normal(TINY_FEATURES)),
        )
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"]),
    ]
    x, y = _values(TINY_FEATURES)
    _save(file, helper.make_graph(nodes, "tiny", [x], [y], weights))


def make_identity(file: Path, features: int) -> None:
    """Write a model that only copies, so that what is measured is the way in and out."""
    x, y = _values(features)
    _save(file, helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y]))


def _described(name: str, file: Path) -> BenchModel:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (first_input,), (first_output,) = session.get_inputs(), session.get_outputs()
    return BenchModel(
        name=name,
        file=file,
        input_name=first_input.name,
        input_shape=tuple(first_input.shape[1:]),
        output_name=first_output.name,
        output_shape=tuple(first_output.shape[1:]),
    )


@cache
def generated(directory: Path) -> dict[str, BenchModel]:
    """Make the models of the load test in a directory and describe them, by name."""
    makers: dict[str, Callable[[Path], None]] = {
        "tiny": make_tiny,
        "image": lambda file: make_identity(file, IMAGE_FEATURES),
        "numbers": lambda file: make_identity(file, JSON_FEATURES),
    }
    models = {}
    for name, make in makers.items():
        file = directory / f"{name}.onnx"
        make(file)
        models[name] = _described(name, file)
    return models


def convert_efficientnet(file: Path) -> BenchModel:
    """Convert EfficientNet-Lite0 with float32 input, unless the file is there, by the demo's own converter.

    Raises:
        subprocess.CalledProcessError: The demo's packages are not installed.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        converter = [sys.executable, "-m", "kingpole.demo.efficientnet", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT / "server")}
        subprocess.run(converter, env=environment, check=True, stdout=subprocess.DEVNULL)
    return _described("efficientnet", file)
