"""Models of every form that a description of the interface must get right, and one that would break it."""

from __future__ import annotations

from pathlib import Path

import onnx_models
from onnx import TensorProto

HOSTILE = "</p><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"
HOSTILE_TENSOR = "x'\"<b>$(id)`id`\\"
_EVERY_DATATYPE = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
                   "FP32", "FP64", "BF16", "BYTES")  # fmt: skip
_OPTIONAL = """
INPUTS = [("x", "FP32", [-1, 4]), ("bias", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x, bias=None):
    return x if bias is None else x + bias
"""


def write(directory: Path) -> Path:
    """Write the repository."""
    for version in ("1", "2"):
        onnx_models.doubling(directory / "double" / version / "model.onnx")
    (directory / "double" / "model.yaml").write_text("versions: all\n")
    onnx_models.echo(directory / "picture" / "model.onnx", TensorProto.UINT8, ["rows", 224, 224, 3])
    onnx_models.doubling(directory / "fixed" / "model.onnx", batching=False)
    _identity(directory / "every-datatype", [(name.lower(), name, "[-1, 2]") for name in _EVERY_DATATYPE])
    _identity(directory / "text", [("text", "BYTES", "[-1, 1000]")])
    _identity(directory / "scalar", [("value", "INT64", "[]")], "max_batch_size: 0\n")
    described = f"description: {_quoted(HOSTILE)}\nmax_batch_size: 8\n"
    _identity(directory / "hostile", [(HOSTILE_TENSOR, "FP32", "[-1, 3]")], described)
    (directory / "optional").mkdir()
    (directory / "optional" / "model.py").write_text(_OPTIONAL)
    (directory / "optional" / "model.yaml").write_text("inputs:\n  - {name: bias, optional: true}\n")
    return directory


def write_broken(directory: Path) -> Path:
    """Write a model that cannot be served."""
    (directory / "broken").mkdir()
    (directory / "broken" / "model.onnx").write_bytes(b"<script>no model</script>")
    return directory


def _identity(directory: Path, tensors: list[tuple[str, str, str]], more: str = "") -> None:
    lines = [
        f"  - {{name: {_quoted(name)}, datatype: {kind}, shape: {shape}}}" for name, kind, shape in tensors
    ]
    directory.mkdir(parents=True)
    text = "\n".join(["backend: identity", "inputs:", *lines, "outputs:", *lines])
    (directory / "model.yaml").write_text(f"{text}\n{more}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
