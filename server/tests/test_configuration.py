from __future__ import annotations

from pathlib import Path

import pytest
from kingpole.configuration import (
    ConfigurationError,
    ModelConfiguration,
    TensorConfiguration,
    read_configuration,
    write_configuration,
)

YAML = """
backend: onnx
max_batch_size: 16
inputs:
  - {name: x, datatype: FP32, shape: [-1, 4]}
"""


def written(directory: Path, text: str, name: str = "model.yaml") -> Path:
    (directory / name).write_text(text)
    return directory / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.yaml", YAML),
        (
            "model.json",
            '{"backend": "onnx", "max_batch_size": 16,'
            ' "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}',
        ),
        (
            "model.toml",
            'backend = "onnx"\nmax_batch_size = 16\n'
            '[[inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1, 4]\n',
        ),
    ],
)
def test_the_three_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert read_configuration(written(tmp_path, text, name)) == ModelConfiguration(
        backend="onnx",
        max_batch_size=16,
        inputs=(TensorConfiguration(name="x", datatype="FP32", shape=(-1, 4)),),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("backend: onnx\nmax_batchsize: 3\n", r"model\.yaml:2: .*unknown field `max_batchsize`"),
        ("backend: onnx\n\nmax_batch_size: many\n", r"model\.yaml:3: .*max_batch_size"),
        ("inputs:\n  - name: x\n    datatype: FLOAT\n", r"model\.yaml:3: .*'FLOAT'.*inputs"),
        ("name: ../etc\n", r"model\.yaml:1: .*name"),
        ("a: [\n", r"model\.yaml: .*line 2"),
        ("- 1\n", r"model\.yaml: Expected `object`"),
        ("!!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read_configuration(written(tmp_path, text))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_configuration(written(tmp_path, "")) == ModelConfiguration()


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    configuration = read_configuration(written(tmp_path, YAML + "versions: {specific: [1, 3]}\n"))
    assert read_configuration(written(tmp_path, write_configuration(configuration))) == configuration


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [("versions: all", [1, 2, 10]), ("versions: {latest: 2}", [2, 10]), ("", [10]),
     ("versions: {specific: [1]}", [1])],
)  # fmt: skip
def test_the_version_policy_chooses(tmp_path: Path, policy: str, chosen: list[int]) -> None:
    assert read_configuration(written(tmp_path, policy)).select_versions([2, 10, 1]) == chosen


def test_a_version_that_is_missing_is_an_error(tmp_path: Path) -> None:
    configuration = read_configuration(written(tmp_path, "versions: {specific: [4]}"))
    with pytest.raises(ConfigurationError, match="version 4 is not there"):
        configuration.select_versions([1])
