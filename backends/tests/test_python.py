from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import ContractTests
from kingpole._arrays import Array
from kingpole.contract import Model, ModelError, find_backend

DECLARATION = """
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
MAX_BATCH_SIZE = 32
"""
HINTS = """
from typing import Annotated
import numpy as np
from numpy.typing import NDArray
Rows = Annotated[NDArray[np.float32], (-1, 4)]
"""


def load(directory: Path, source: str, **configuration: Any) -> Model:
    (directory / "model.py").write_text(source)
    return find_backend("python").load(directory, configuration, "cpu")


class TestFunction(ContractTests):
    backend = "python"
    source = DECLARATION + "def infer(x):\n    return x * 3\n"

    def write(self, directory: Path) -> dict[str, Any]:
        (directory / "model.py").write_text(self.source)
        return {"name": "triple"}

    def expected(self, x: Array) -> Array:
        return x * 3

    def write_broken(self, directory: Path) -> dict[str, Any]:
        (directory / "model.py").write_text("x = 1\n")
        return {"name": "nothing"}


class TestExecute(TestFunction):
    source = DECLARATION + "def execute(inputs):\n    return {'y': inputs['x'] * 3}\n"


class TestClass(TestFunction):
    source = (
        DECLARATION
        + "class Model:\n"
        + "    def __init__(self, directory):\n"
        + "        self.factor = len(list(directory.glob('model.py'))) * 3\n"
        + "    def execute(self, inputs):\n        return {'y': inputs['x'] * self.factor}\n"
    )


def test_a_signature_is_read_from_type_hints(tmp_path: Path) -> None:
    model = load(tmp_path, HINTS + "def infer(x: Rows) -> tuple[Rows, Rows]:\n    return x, -x\n")
    assert [spec.name for spec in model.signature.outputs] == ["output0", "output1"]
    assert model.signature.inputs[0].row() == ["x", "FP32", [-1, 4]]
    outputs = model.execute({"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(outputs["output1"], -np.ones((1, 4), np.float32))


def test_the_configuration_wins_over_the_module(tmp_path: Path) -> None:
    tensor = {"datatype": "INT64", "shape": [2]}
    model = load(
        tmp_path,
        DECLARATION + "def infer(a):\n    return a\n",
        inputs=[{"name": "a", **tensor}],
        outputs=[{"name": "b", **tensor}],
        max_batch_size=0,
    )
    assert [spec.name for spec in (*model.signature.inputs, *model.signature.outputs)] == ["a", "b"]
    assert model.signature.max_batch_size == 0


def test_requests_are_not_joined_unless_the_user_says_so(tmp_path: Path) -> None:
    model = load(tmp_path, HINTS + "def infer(x: Rows) -> Rows:\n    return x\n")
    assert model.signature.max_batch_size == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def infer(x): return x\n", "inputs are not declared"),
        (DECLARATION + "def infer(z): return z\n", r"infer takes \(z\) but the declared inputs are \(x\)"),
        (DECLARATION + "class Model: pass\n", "has no method execute"),
        ("INPUTS = [('x', 'FLOAT', [1])]\ndef infer(x): return x\n", "'FLOAT' of 'x' is no datatype"),
        ("INPUTS = ['x']\ndef infer(x): return x\n", r"expected \(name, datatype, shape\)"),
    ],
)
def test_a_model_that_cannot_be_served_says_what_is_missing(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load(tmp_path, source)


def test_a_wrong_number_of_outputs_is_named(tmp_path: Path) -> None:
    model = load(tmp_path, DECLARATION + "def infer(x): return x, x\n")
    with pytest.raises(ModelError, match="returned 2 outputs, 1 are declared"):
        model.execute({"x": np.ones((1, 4), np.float32)})


def test_warmup_and_close_reach_the_users_object(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        DECLARATION
        + "seen = []\nclass Model:\n"
        + "    def execute(self, inputs): return {'y': inputs['x'] + len(seen)}\n"
        + "    def warmup(self): seen.append('warm')\n"
        + "    def close(self): seen.append('closed')\n",
    )
    model.warmup()
    model.close()
    np.testing.assert_array_equal(
        model.execute({"x": np.zeros((1, 4), np.float32)})["y"], np.full((1, 4), 2, np.float32)
    )
