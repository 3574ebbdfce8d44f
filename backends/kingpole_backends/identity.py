"""The identity backend: each output is the input of the same position. For tests and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kingpole._arrays import Array
from kingpole.contract import Backend, Model, ModelError, declared
from kingpole.signature import DEFAULT_MAX_BATCH_SIZE, Signature, TensorSpec, is_batchable


class IdentityModel(Model):
    """Gives each input back as the output of the same position."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._names = tuple(
            (given.name, output.name)
            for given, output in zip(signature.inputs, signature.outputs, strict=True)
        )

    def execute(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Give the inputs back."""
        return {output: inputs[given] for given, output in self._names}


class IdentityBackend(Backend):
    """Needs only declared inputs; undeclared outputs are named `OUTPUT0`, `OUTPUT1`, and so on."""

    name = "identity"

    def load(self, directory: Path, configuration: Mapping[str, Any], device: str) -> IdentityModel:
        """Make a model of the declared tensors."""
        inputs = declared(configuration, "inputs")
        if not inputs:
            raise ModelError(
                "FAILED_PRECONDITION", "the identity backend needs `inputs` in the configuration"
            )
        outputs = declared(configuration, "outputs") or tuple(
            TensorSpec(f"OUTPUT{index}", spec.datatype, spec.shape) for index, spec in enumerate(inputs)
        )
        if [(spec.datatype, spec.shape) for spec in inputs] != [
            (spec.datatype, spec.shape) for spec in outputs
        ]:
            raise ModelError("FAILED_PRECONDITION", "identity: outputs must match the inputs one for one")
        max_batch_size = configuration.get("max_batch_size")
        if max_batch_size is None:
            max_batch_size = DEFAULT_MAX_BATCH_SIZE if is_batchable((*inputs, *outputs)) else 0
        return IdentityModel(
            Signature(platform="identity", inputs=inputs, outputs=outputs, max_batch_size=max_batch_size)
        )
