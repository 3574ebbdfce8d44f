from __future__ import annotations

import json
from typing import Any

import pytest
from kingpole.configuration import ConfigurationError, ModelConfiguration, VersionPolicy
from kingpole.repository.prototext import PrototextError, parse
from kingpole.repository.triton import config_json, read_override, read_prototext

CONFIG = """
# a comment
name: "dense"  platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32, dims: [ 3, -1 ] }, { name: "s" data_type: TYPE_STRING dims: 1 } ]
output { name: "y" data_type: TYPE_INT64 dims: [ 1 ] label_filename: "labels.txt" }
instance_group [ { count: 2 kind: KIND_CPU } ]
version_policy: { specific { versions: [ 1, 3 ] } }
dynamic_batching {
  max_queue_delay_microseconds: 100
  default_queue_policy < default_timeout_microseconds: 5000 >
}
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: 'graph_level' value: { string_value: "0" } }
optimization { priority: PRIORITY_MAX }
colour: "blue"
"""


def test_a_configuration_is_mapped_field_by_field() -> None:
    configuration, notes = read_prototext(CONFIG)
    assert (configuration.name, configuration.backend, configuration.max_batch_size) == ("dense", "onnx", 8)
    assert [(each.name, each.datatype, each.shape) for each in configuration.inputs] == [
        ("x", "FP32", (-1, 3, -1)),
        ("s", "BYTES", (-1, 1)),
    ]
    assert configuration.outputs[0].labels == "labels.txt"
    assert configuration.instances == 2
    assert configuration.versions == VersionPolicy(specific=(1, 3))
    assert (configuration.max_queue_delay_us, configuration.default_timeout_us) == (100, 5000)
    assert configuration.options == {"intra_op_thread_count": "1", "graph_level": "0"}
    assert any("optimization has no effect" in note for note in notes)
    assert any("unknown field 'colour'" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sequence_batching { iterative_sequence: true }", "iterative_sequence: not supported"),
        ("ensemble_scheduling { step [ { model_name: '../a' } ] }", "model"),
        ("model_transaction_policy { decoupled: 3 }", "decoupled"),
        ("model_operations { op_library_filename: 'x.so' }", "libraries of operators are not loaded"),
        ('platform: "caffe2_netdef"', "platform 'caffe2_netdef' is not supported"),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }",
            "reshape is not supported",
        ),
        ("input { name: 'x' data_type: TYPE_FP23 dims: [1] }", "FP23"),
        ("max_batch_size: lots", "max_batch_size: expected a number"),
        ("name: \n\n 'x", "line"),
    ],
)
def test_what_cannot_be_served_is_refused_by_field(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read_prototext(text)
    assert "config.pbtxt" in str(caught.value)


def test_without_a_batch_size_dims_are_the_whole_shape() -> None:
    configuration, _ = read_prototext("input { name: 'x' data_type: TYPE_FP32 dims: [ 2, 4 ] }")
    assert configuration.inputs[0].shape == (2, 4)
    assert configuration.max_batch_size == 0


def test_an_override_is_protobuf_json() -> None:
    configuration, _ = read_override('{"maxBatchSize": "16", "backend": "onnxruntime"}')
    assert (configuration.max_batch_size, configuration.backend) == (16, "onnx")
    with pytest.raises(ConfigurationError, match="is no JSON"):
        read_override("{")


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ["x"]}, {"input": {"name": "x", "dims": ["wide"]}}, {"version_policy": 3},
        {"version_policy": {"specific": {"versions": [True]}}}, {"version_policy": {"latest": 1}},
        {"dynamic_batching": []}, {"dynamic_batching": {"default_queue_policy": 1}}, {"instance_group": 1},
        {"instance_group": {"gpus": ["a"]}}, {"parameters": ["x"]}, {"max_batch_size": True},
        {"max_batch_size": 1e400}, {"name": 3}, {"default_model_filename": ["a"]}, {"output": {"dims": [-7]}},
        {"platform": {}, "backend": [1]}, {"model_transaction_policy": 1},
        {"sequence_batching": {"max_sequence_idle_microseconds": "x"}},
        {"sequence_batching": {"control_input": [3]}},
        {"sequence_batching": {"state": {"initial_state": "x"}}},
    ],
)  # fmt: skip
def test_an_override_of_another_form_is_refused_and_never_a_fault(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="parameter 'config'"):
        read_override(json.dumps(fields))


def test_protobufs_json_may_write_names_in_camel_case() -> None:
    configuration, _ = read_override(
        '{"maxBatchSize": 2, "input": [{"name": "x", "dataType": "TYPE_FP32", "dims": ["4"]}],'
        ' "output": [{"name": "y", "labelFilename": "l.txt"}], "parameters": {"aB": {"stringValue": "c"}}}'
    )
    assert configuration.inputs[0].shape == (-1, 4)
    assert configuration.outputs[0].labels == "l.txt"
    assert configuration.options == {"aB": "c"}


def test_what_has_no_effect_is_noted_with_the_reason() -> None:
    configuration, notes = read_prototext(
        """
        input { name: "x" data_type: TYPE_FP32 dims: [3, 2, 2] format: FORMAT_NCHW }
        dynamic_batching {
          preferred_batch_size: [4, 8] preserve_ordering: true priority_levels: 2
          default_queue_policy { timeout_action: DELAY max_queue_size: 9 }
        }
        instance_group { kind: KIND_GPU gpus: [1, 2] host_policy: "a" }
        response_cache { enable: true }
        model_warmup { name: "w" }
        metric_tags { key: "a" value: "b" }
        """
    )
    assert configuration.device == "cuda:1"
    for words in (
        "format has no effect", "preferred_batch_size has no effect", "preserve_ordering has no effect",
        "priority_levels has no effect", "DELAY has no effect", "max_queue_size has no effect", "first GPU",
        "host_policy has no effect", "not cached", "generated inputs", "labeled by model",
    ):  # fmt: skip
        assert any(words in note for note in notes), words


def test_decoupled_is_read_and_written() -> None:
    configuration, _ = read_prototext("model_transaction_policy { decoupled: true }")
    assert configuration.decoupled is True
    specification: dict[str, Any] = {
        "name": "m", "platform": "python", "backend": "python", "max_batch_size": 8, "decoupled": True,
        "inputs": [], "outputs": [], "max_queue_delay_us": 0,
    }  # fmt: skip
    written = json.loads(config_json(specification, configuration, "model.py"))
    assert written["model_transaction_policy"] == {"decoupled": True}
    assert "dynamic_batching" not in written


def test_strings_are_unescaped_and_joined() -> None:
    assert parse(r'''a: "one\n" 'tw\'o' b: -3 c: 1.5f d: true''') == {
        "a": "one\ntw'o", "b": -3, "c": 1.5, "d": True,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a: }", "a {", "a b", "a: [1", "{", "a: \x01", "a {" * 100, 'a: "\\x"'])
def test_text_that_is_no_message_names_its_line(text: str) -> None:
    with pytest.raises(PrototextError, match="line 1"):
        parse(text)


def test_the_written_configuration_has_every_scalar() -> None:
    specification: dict[str, Any] = {
        "name": "m", "platform": "onnxruntime_onnx", "backend": "onnx", "max_batch_size": 32,
        "inputs": [["x", "FP32", [-1, 4], False]], "outputs": [["s", "BYTES", [-1]]], "max_queue_delay_us": 0,
    }  # fmt: skip
    written = json.loads(config_json(specification, ModelConfiguration(), "model.onnx"))
    assert written["backend"] == "onnxruntime"
    assert written["input"][0] == {
        "name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [4], "is_shape_tensor": False,
        "allow_ragged_batch": False, "optional": False, "is_non_linear_format_io": False,
    }  # fmt: skip
    assert written["output"][0]["data_type"] == "TYPE_STRING"
    assert written["output"][0]["dims"] == []
    assert written["version_policy"] == {"latest": {"num_versions": 1}}
    assert written["dynamic_batching"]["preferred_batch_size"] == [32]
