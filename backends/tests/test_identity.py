from __future__ import annotations

from pathlib import Path
from typing import Any

from contract import ContractTests
from kingpole._arrays import Array


class TestIdentity(ContractTests):
    backend = "identity"

    def write(self, directory: Path) -> dict[str, Any]:
        tensor = {"datatype": "FP32", "shape": [-1, 4]}
        return {"name": "echo", "inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}

    def expected(self, x: Array) -> Array:
        return x

    def write_broken(self, directory: Path) -> dict[str, Any]:
        return {"name": "echo"}
