from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from contract import ContractTests
from kingpole._arrays import Array, dtype_of
from kingpole.contract import Model, ModelError, find_backend
from onnx import TensorProto


def load(directory: Path, **configuration: Any) -> Model:
    return find_backend("onnx").load(directory, configuration, "cpu")


class TestOnnx(ContractTests):
    backend = "onnx"

    def write(self, directory: Path) -> dict[str, Any]:
        return {"name": "double", "file": str(onnx_models.doubling(directory / "model.onnx"))}

    def expected(self, x: Array) -> Array:
        return x + x

    def write_broken(self, directory: Path) -> dict[str, Any]:
        (directory / "broken.onnx").write_bytes(b"not a model")
        return {"name": "broken", "file": str(directory / "broken.onnx")}


@pytest.mark.parametrize(
    ("element", "datatype"),
    [
        (TensorProto.BOOL, "BOOL"),
        (TensorProto.UINT8, "UINT8"),
        (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.DOUBLE, "FP64"),
        (TensorProto.BFLOAT16, "BF16"),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 3)])
def test_every_datatype_goes_through_unchanged(
    tmp_path: Path, element: int, datatype: str, shape: tuple[int, int]
) -> None:
    onnx_models.echo(tmp_path / "model.onnx", element, ["rows", "columns"])
    model = load(tmp_path)
    assert model.signature.inputs[0].datatype == datatype
    x = np.arange(shape[0] * shape[1]).reshape(shape).astype(dtype_of(datatype))
    y = model.execute({"x": x})["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


def test_strings_go_through(tmp_path: Path) -> None:
    onnx_models.echo(tmp_path / "model.onnx", TensorProto.STRING, ["rows"])
    y = load(tmp_path).execute({"x": np.array([b"one", "zw\u00f6lf".encode()], object)})["y"]
    assert [each.encode() if isinstance(each, str) else each for each in y] == [b"one", "zw\u00f6lf".encode()]


def test_a_scalar_goes_through_and_does_not_batch(tmp_path: Path) -> None:
    onnx_models.echo(tmp_path / "model.onnx", TensorProto.FLOAT, [])
    model = load(tmp_path)
    assert model.signature.max_batch_size == 0
    assert model.execute({"x": np.array(2.5, np.float32)})["y"] == 2.5


def test_a_fixed_first_dimension_does_not_batch(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "model.onnx", batching=False)
    assert load(tmp_path).signature.max_batch_size == 0


def test_a_variable_first_dimension_batches_up_to_32_rows(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "model.onnx")
    assert load(tmp_path).signature.max_batch_size == 32


def test_an_output_that_is_no_tensor_is_refused_by_name(tmp_path: Path) -> None:
    onnx_models.sequence_output(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="output 'y' has type seq"):
        load(tmp_path)


def test_an_unavailable_execution_provider_is_noted_and_the_cpu_used(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "model.onnx")
    notes = load(tmp_path, options={"providers": "NoSuch"}).signature.notes
    assert any("NoSuchExecutionProvider is not available" in note for note in notes)
    assert any("runs on CPU" in note for note in notes)


def test_an_unknown_option_is_noted(tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "model.onnx")
    assert any("'speed'" in note for note in load(tmp_path, options={"speed": "high"}).signature.notes)
