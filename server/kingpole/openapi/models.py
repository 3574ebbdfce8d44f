"""A served model as its users see it: the schema of its requests, and requests that it answers."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kingpole.signature import ELEMENT_BYTES, TensorSpec

MOST_INLINE_ELEMENTS = 256
"""Elements of a request that is still shown as JSON in the document and on the page."""

MOST_ELEMENTS = 1 << 20
"""Elements of a request that is still written as JSON at all."""

_REFERENCE = "#/components/schemas/"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One version that is served. All text in it was written by others: escape it where it is shown."""

    name: str
    version: str
    platform: str
    backend: str
    runs: str
    description: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class UnservedModel:
    """A version that is known and not served, and why."""

    name: str
    version: str | None
    state: str
    reason: str


def latest(models: Sequence[ServedModel]) -> list[ServedModel]:
    """The version of each model that answers when none is named, in the order of their names."""
    newest: dict[str, ServedModel] = {}
    for model in models:
        known = newest.get(model.name)
        if known is None or int(known.version) < int(model.version):
            newest[model.name] = model
    return [newest[name] for name in sorted(newest)]


def infer_path(model: ServedModel, *, versioned: bool = False) -> str:
    """Where a model is asked. Names and versions have no character that a URL would need to escape."""
    return f"/v2/models/{model.name}{f'/versions/{model.version}' if versioned else ''}/infer"


def _sizes(spec: TensorSpec) -> list[int]:
    return [1 if size < 0 else size for size in spec.shape]


def _asked(model: ServedModel) -> list[TensorSpec]:
    return [spec for spec in model.inputs if not spec.optional]


def example_elements(model: ServedModel) -> int:
    """How many elements the smallest request of a model has."""
    return sum(math.prod(_sizes(spec)) for spec in _asked(model))


def example_request(model: ServedModel) -> dict[str, Any] | None:
    """The smallest request: one row of zeros, or of empty text; None if it would be too large for JSON."""
    if example_elements(model) > MOST_ELEMENTS:
        return None
    inputs = []
    for spec in _asked(model):
        zero = {"BOOL": False, "BYTES": ""}.get(spec.datatype, 0)
        data = [zero] * math.prod(_sizes(spec))
        inputs.append({"name": spec.name, "datatype": spec.datatype, "shape": _sizes(spec), "data": data})
    return {"inputs": inputs}


def curl_line(model: ServedModel, url: str) -> str:
    """A command that asks a model: JSON if that is short, else JSON and zeros as binary tensors.

    Args:
        model: Whom to ask.
        url: The server's, or `unix:PATH`.
    """
    socket = url.removeprefix("unix:") if url.startswith("unix:") else None
    target = f"http://localhost{infer_path(model)}" if socket else url + infer_path(model)
    curl = f"curl --unix-socket {shlex.quote(socket)}" if socket else "curl"
    if example_elements(model) <= MOST_INLINE_ELEMENTS:
        body = json.dumps(example_request(model))
        return f"{curl} {shlex.quote(target)} -d {shlex.quote(body)}"
    inputs, nbytes = [], 0
    for spec in _asked(model):
        # An empty text is its length of four bytes, zero.
        size = math.prod(_sizes(spec)) * (ELEMENT_BYTES[spec.datatype] or 4)
        parameters = {"binary_data_size": size}
        inputs.append(
            {"name": spec.name, "datatype": spec.datatype, "shape": _sizes(spec), "parameters": parameters}
        )
        nbytes += size
    head = json.dumps({"inputs": inputs})
    return (
        f"(printf %s {shlex.quote(head)}; head -c {nbytes} /dev/zero) |"
        f" {curl} {shlex.quote(target)} -H 'Inference-Header-Content-Length: {len(head)}' --data-binary @-"
    )


def request_schema(model: ServedModel) -> dict[str, Any]:
    """The generic request with this model's inputs. What JSON Schema cannot say: each name once."""
    tensors = [_tensor_schema(spec, model.max_batch_size) for spec in model.inputs]
    inputs: dict[str, Any] = {"type": "array", "minItems": len(_asked(model)), "maxItems": len(tensors)}
    if tensors:
        inputs["items"] = {"anyOf": tensors}
    names = {"type": "string", "enum": [spec.name for spec in model.outputs]}
    outputs = {
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"name": names}},
    }
    return {
        "allOf": [{"$ref": f"{_REFERENCE}InferRequest"}],
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": inputs, "outputs": outputs},
    }


def response_schema(model: ServedModel) -> dict[str, Any]:
    """The generic answer with this model's outputs."""
    outputs: dict[str, Any] = {"type": "array", "maxItems": len(model.outputs)}
    if model.outputs:
        outputs["items"] = {"anyOf": [_tensor_schema(spec, 0) for spec in model.outputs]}
    return {
        "allOf": [{"$ref": f"{_REFERENCE}InferResponse"}],
        "type": "object",
        "properties": {"model_name": {"const": model.name}, "outputs": outputs},
    }


def _tensor_schema(spec: TensorSpec, most_rows: int) -> dict[str, Any]:
    sizes: list[dict[str, Any]] = [
        {"type": "integer", "minimum": 0} if size < 0 else {"const": size} for size in spec.shape
    ]
    if most_rows:
        sizes[0] = {"type": "integer", "minimum": 1, "maximum": most_rows}
    shape: dict[str, Any] = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    if sizes:
        shape["prefixItems"] = sizes
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": shape,
            "data": {"type": "array", "items": {"type": [_json_type(spec.datatype), "array"]}},
        },
    }


def _json_type(datatype: str) -> str:
    if datatype in ("BOOL", "BYTES"):
        return {"BOOL": "boolean", "BYTES": "string"}[datatype]
    return "integer" if "INT" in datatype else "number"
