"""The contract test that every backend passes: it loads models and runs batches as a worker does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kingpole._arrays import Array, to_datatype
from kingpole.contract import Backend, Model, ModelError, find_backend
from kingpole.signature import ELEMENT_BYTES, is_batchable
from kingpole.worker.serving import checked


class ContractTests:
    """Subclass this with the five members below; each promise of the contract is one test.

    `write` puts a model into a directory and gives its configuration: it takes an FP32 input
    `x` of shape [-1, 4] and gives `y` of the same shape, with y equal to `expected(x)`.
    """

    backend: str

    def write(self, directory: Path) -> dict[str, Any]:
        raise NotImplementedError

    def expected(self, x: Array) -> Array:
        raise NotImplementedError

    def write_broken(self, directory: Path) -> dict[str, Any]:
        """Put something into a directory that cannot be loaded."""
        raise NotImplementedError

    @pytest.fixture
    def made(self) -> Backend:
        return find_backend(self.backend)

    @pytest.fixture
    def model(self, made: Backend, tmp_path: Path) -> Model:
        return made.load(tmp_path, self.write(tmp_path), "cpu")

    def test_a_backend_is_found_by_its_name(self, made: Backend) -> None:
        assert made.name == self.backend

    def test_a_signature_declares_known_datatypes_and_the_whole_shape(self, model: Model) -> None:
        specs = (*model.signature.inputs, *model.signature.outputs)
        assert [spec.name for spec in specs] == ["x", "y"]
        assert all(spec.datatype in ELEMENT_BYTES for spec in specs)
        assert [spec.shape for spec in specs] == [(-1, 4), (-1, 4)]
        assert model.signature.platform

    def test_a_model_that_batches_has_a_variable_first_dimension_everywhere(self, model: Model) -> None:
        signature = model.signature
        assert not signature.max_batch_size or is_batchable((*signature.inputs, *signature.outputs))

    @pytest.mark.parametrize("rows", [1, 2, 7, 32])
    def test_every_row_of_a_batch_has_its_own_answer(self, model: Model, rows: int) -> None:
        x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        y = model.execute({"x": x})["y"]
        np.testing.assert_allclose(y, self.expected(x), rtol=1e-6)
        for row in range(rows):
            np.testing.assert_allclose(model.execute({"x": x[row : row + 1]})["y"][0], y[row], rtol=1e-6)

    def test_outputs_pass_the_check_of_the_worker(self, model: Model) -> None:
        outputs = model.execute({"x": np.ones((3, 4), np.float32)})
        for spec in model.signature.outputs:
            assert to_datatype(checked(spec, outputs[spec.name], 3), spec.datatype) is not None

    def test_an_empty_batch_gives_empty_outputs(self, model: Model) -> None:
        assert model.execute({"x": np.empty((0, 4), np.float32)})["y"].shape == (0, 4)

    def test_execute_leaves_its_inputs_as_they_were(self, model: Model) -> None:
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        model.execute({"x": x})
        np.testing.assert_array_equal(x, np.arange(8, dtype=np.float32).reshape(2, 4))

    def test_two_instances_do_not_disturb_each_other(self, made: Backend, tmp_path: Path) -> None:
        configuration = self.write(tmp_path)
        first, second = (made.load(tmp_path, configuration, "cpu") for _ in range(2))
        x = np.ones((1, 4), np.float32)
        first.warmup()
        second.warmup()
        first.close()
        np.testing.assert_allclose(second.execute({"x": x})["y"], self.expected(x), rtol=1e-6)
        second.close()

    def test_a_broken_model_is_refused_with_a_reason(self, made: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelError) as caught:
            made.load(tmp_path, self.write_broken(tmp_path), "cpu")
        assert caught.value.code == "FAILED_PRECONDITION"
        assert caught.value.message
