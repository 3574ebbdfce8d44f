"""ONNX models, through ONNX Runtime.

Models that are quick enough run inside the server through ONNX Runtime's C interface
instead; this module is for all others and for devices.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from kingpole._arrays import Array, dtype_of
from kingpole.contract import Backend, Model, ModelError
from kingpole.signature import DEFAULT_MAX_BATCH_SIZE, Signature, TensorSpec, is_batchable

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    "tensor(bfloat16)": "BF16",
}
_ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16."""

_OPTIONS = frozenset(
    {"intra_op_thread_count", "inter_op_thread_count", "execution_mode", "graph_level", "providers"}
)
_GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    99: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxModel(Model):
    """One session. BF16 tensors take a slower way, as numpy has no such type."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        self._output_names = [spec.name for spec in signature.outputs]
        self._datatypes = {spec.name: spec.datatype for spec in signature.inputs}
        self._text_names = {spec.name for spec in signature.inputs if spec.datatype == "BYTES"}
        self._has_bf16 = any(spec.datatype == "BF16" for spec in (*signature.inputs, *signature.outputs))

    def execute(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run the session once."""
        for name in self._text_names & inputs.keys():
            inputs = {**inputs, name: _decode(name, inputs[name])}
        try:
            if self._has_bf16:
                return self._execute_bf16(inputs)
            # Outputs that are no tensors were refused at load.
            outputs: Any = self._session.run(self._output_names, inputs)
        except Exception as error:
            raise ModelError("INTERNAL", f"ONNX Runtime: {_first_line(error)}") from error
        return dict(zip(self._output_names, outputs, strict=True))

    def _execute_bf16(self, inputs: dict[str, Array]) -> dict[str, Array]:
        given = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(tensor).view(np.uint16), _ONNX_BFLOAT16
            )
            if self._datatypes[name] == "BF16"
            else onnxruntime.OrtValue.ortvalue_from_numpy(tensor)
            for name, tensor in inputs.items()
        }
        outputs = self._session.run_with_ort_values(self._output_names, given)
        return {
            spec.name: _read_bf16(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(self.signature.outputs, outputs, strict=True)
        }


class OnnxBackend(Backend):
    """Loads `.onnx` files; what the configuration leaves out is read from the model."""

    name = "onnx"

    def load(self, directory: Path, configuration: Mapping[str, Any], device: str) -> OnnxModel:
        """Make a session of the file."""
        file = Path(configuration.get("file") or directory / "model.onnx")
        options = dict(configuration.get("options") or {})
        notes = [
            f"option '{unknown}' is not known to the onnx backend and has no effect"
            for unknown in sorted(options.keys() - _OPTIONS)
        ]
        providers = _providers(device, options.get("providers"), notes)
        try:
            session = onnxruntime.InferenceSession(
                str(file if file.is_absolute() else directory / file),
                _session_options(options),
                providers=providers,
            )
        except Exception as error:
            raise ModelError("FAILED_PRECONDITION", f"ONNX Runtime: {_first_line(error)}") from error
        inputs = tuple(_spec("input", node) for node in session.get_inputs())
        outputs = tuple(_spec("output", node) for node in session.get_outputs())
        used = [provider.removesuffix("ExecutionProvider") for provider in session.get_providers()]
        notes.append(f"runs on {', '.join(used)} of ONNX Runtime {onnxruntime.__version__}")
        batchable = is_batchable((*inputs, *outputs))
        return OnnxModel(
            session,
            Signature(
                platform="onnxruntime_onnx",
                inputs=inputs,
                outputs=outputs,
                max_batch_size=DEFAULT_MAX_BATCH_SIZE if batchable else 0,
                description=session.get_modelmeta().description or "",
                notes=tuple(notes),
            ),
        )


def _session_options(options: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.intra_op_num_threads = int(
        options.get("intra_op_thread_count") or os.environ.get("KINGPOLE_THREADS") or 0
    )
    made.inter_op_num_threads = int(options.get("inter_op_thread_count") or 1)
    if str(options.get("execution_mode", "0")) == "1":
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    level = int(options.get("graph_level", 99))
    if level not in _GRAPH_LEVELS:
        raise ModelError("FAILED_PRECONDITION", f"option 'graph_level': expected -1, 0 or 1, got {level}")
    made.graph_optimization_level = _GRAPH_LEVELS[level]
    return made


def _providers(device: str, asked: object, notes: list[str]) -> list[Any]:
    """Choose execution providers; one that is missing is left out and noted, the CPU is always last."""
    available = onnxruntime.get_available_providers()
    chosen: list[Any] = []
    kind, _, number = device.partition(":")
    names = [name.strip() for name in str(asked).split(",")] if asked else {"cuda": ["CUDA"]}.get(kind, [])
    for name in names:
        full = name if name.endswith("ExecutionProvider") else f"{name}ExecutionProvider"
        if full == "CPUExecutionProvider":
            continue
        if full in available:
            chosen.append((full, {"device_id": number or "0"}) if kind == "cuda" else full)
        else:
            notes.append(f"execution provider {full} is not available here; the next one is used instead")
    return [*chosen, "CPUExecutionProvider"]


def _spec(kind: str, node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise ModelError(
            "FAILED_PRECONDITION",
            f"{kind} '{node.name}' has type {node.type}, which cannot be sent: only tensors can",
        )
    return TensorSpec(
        node.name, datatype, tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    )


def _decode(name: str, tensor: Array) -> Array:
    """Turn bytes into text: ONNX strings are UTF-8, and ONNX Runtime takes them as str only."""
    decoded = np.empty(tensor.shape, object)
    try:
        decoded.ravel()[:] = [element.decode() for element in tensor.ravel()]
    except UnicodeDecodeError as error:
        raise ModelError(
            "INVALID_ARGUMENT", f"input '{name}': strings must be UTF-8 ({error.reason})"
        ) from error
    return decoded


def _read_bf16(value: Any) -> Array:
    """Copy a BF16 tensor out of ONNX Runtime, which cannot give it to numpy itself."""
    shape = tuple(value.shape())
    elements = int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), elements * 2)
    return np.frombuffer(raw, dtype_of("BF16")).reshape(shape)


def _first_line(error: Exception) -> str:
    """ONNX Runtime's reason without the source positions it puts before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
