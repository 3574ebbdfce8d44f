"""A model of Triton's Python backend that runs model.onnx beside it. Runs inside Triton's stub."""
# Triton's stub provides its module; nothing installs it elsewhere.
# mypy: disable-error-code="import-not-found"

from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """ONNX Runtime with one thread; joins the requests of a batch and splits the output."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Load the model that lies beside this file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = Path(arguments["model_repository"]) / arguments["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """Execute one batch."""
        rows = [backend.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        joined = numpy.concatenate(rows) if len(rows) > 1 else rows[0]
        output = self._session.run([self._output], {self._input: joined})[0]
        responses, start = [], 0
        for part in rows:
            end = start + len(part)
            responses.append(backend.InferenceResponse([backend.Tensor(self._output, output[start:end])]))
            start = end
        return responses
