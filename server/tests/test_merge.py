from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kingpole.configuration import ConfigurationError, ModelConfiguration, TensorConfiguration
from kingpole.merge import merge
from kingpole.repository import Artifact

REPORTED: dict[str, Any] = {
    "platform": "onnxruntime_onnx",
    "inputs": [["x", "FP32", [-1, -1]]],
    "outputs": [["y", "FP32", [-1, 4]]],
    "max_batch_size": None,
    "description": "",
}


def merged(reported: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    artifact = Artifact(
        "m", "1", Path("/m"), Path("/m/model.onnx"), "onnx", ModelConfiguration(**fields), Path("/m")
    )
    return merge(artifact, {**REPORTED, **(reported or {})})


def test_without_configuration_all_is_the_models() -> None:
    made = merged()
    assert made["inputs"] == [["x", "FP32", [-1, -1], False]]
    assert made["max_batch_size"] == 32
    assert made["platform"] == "onnxruntime_onnx"


def test_one_field_may_be_given_and_the_others_left_out() -> None:
    made = merged(inputs=(TensorConfiguration(name="x", shape=(-1, 4)),))
    assert made["inputs"] == [["x", "FP32", [-1, 4], False]]
    assert made["outputs"] == [["y", "FP32", [-1, 4]]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"inputs": (TensorConfiguration(name="x", datatype="FP64"),)}, "datatype: expected FP64.* got FP32"),
        ({"outputs": (TensorConfiguration(name="y", shape=(-1, 5)),)}, r"expected \[-1,5\].* got \[-1,4\]"),
        ({"outputs": (TensorConfiguration(name="y", shape=(-1, -1)),)}, r"expected \[-1,-1\].* got \[-1,4\]"),
        ({"inputs": (TensorConfiguration(name="z"),)}, r"input 'z': the model has none of that name \(x\)"),
        ({"inputs": (TensorConfiguration(name="x"),) * 2}, "a name is given twice"),
    ],
)
def test_a_contradiction_names_the_field_and_both_sides(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        merged(**fields)


def test_batching_a_model_with_a_fixed_first_dimension_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"max_batch_size: .*'y' has shape \[1,4\]"):
        merged({"outputs": [["y", "FP32", [1, 4]]]}, max_batch_size=4)
    assert merged({"outputs": [["y", "FP32", [1, 4]]]})["max_batch_size"] == 0


def test_batching_can_be_turned_off_and_limited() -> None:
    assert merged(max_batch_size=0)["max_batch_size"] == 0
    assert merged(max_batch_size=5)["max_batch_size"] == 5
    assert merged({"max_batch_size": 0})["max_batch_size"] == 0
