"""Triton's model configuration: read from `config.pbtxt` or protobuf JSON, and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kingpole.configuration import ConfigurationError, ModelConfiguration
from kingpole.repository.prototext import PrototextError, parse
from kingpole.repository.triton_sequences import read_sequence_batching, sequence_batching

_BACKENDS = {"onnxruntime": "onnx"}
_PLATFORMS = {"onnxruntime_onnx": "onnx"}
_REFUSED = {
    "ensemble_scheduling": "ensembles are not supported yet",
    "batch_input": "batch_input is not supported",
    "batch_output": "batch_output is not supported",
    "model_repository_agents": "repository agents are not supported",
}
_IGNORED = frozenset(
    {"optimization", "metric_tags", "model_metrics", "response_cache", "runtime", "cc_model_filenames",
     "model_operations", "model_warmup"}
)  # fmt: skip


def read_prototext(text: str, file: str = "config.pbtxt") -> tuple[ModelConfiguration, list[str]]:
    """Read a `config.pbtxt`.

    Returns:
        The configuration, and notes about fields that have no effect here.

    Raises:
        ConfigurationError: Naming the file and the line or field.
    """
    try:
        return from_triton(parse(text), file)
    except PrototextError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def read_override(text: str) -> tuple[ModelConfiguration, list[str]]:
    """Read the `config` parameter of a load request: Triton's configuration as protobuf JSON.

    Raises:
        ConfigurationError: When it is not that.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"parameter 'config' is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError("parameter 'config' must be a JSON object")
    return from_triton(fields, "parameter 'config'")


def from_triton(fields: Mapping[str, Any], file: str) -> tuple[ModelConfiguration, list[str]]:
    """Turn Triton's fields into our configuration.

    Raises:
        ConfigurationError: For what cannot be served as asked.
    """
    fields = {_snake(name): value for name, value in fields.items()}
    notes: list[str] = []
    for name, reason in _REFUSED.items():
        if fields.get(name):
            raise ConfigurationError(f"{file}: {name}: {reason}")
    max_batch_size = _integer(fields, "max_batch_size", file)
    plain: dict[str, Any] = {}
    if fields.get("name"):
        plain["name"] = fields["name"]
    platform, backend = str(fields.get("platform") or ""), str(fields.get("backend") or "")
    if backend or platform:
        plain["backend"] = _BACKENDS.get(backend, backend) or _PLATFORMS.get(platform)
        if plain["backend"] is None:
            raise ConfigurationError(f"{file}: platform '{platform}' is not supported")
    if _message(fields, "model_transaction_policy").get("decoupled") is True:
        plain["decoupled"] = True
    if fields.get("default_model_filename"):
        plain["file"] = fields["default_model_filename"]
    if max_batch_size:
        plain["max_batch_size"] = max_batch_size
    # Absent and 0 are the same in proto3; with tensors given it means the dims are whole shapes.
    elif fields.get("input") or fields.get("output"):
        plain["max_batch_size"] = 0
    for ours, theirs in (("inputs", "input"), ("outputs", "output")):
        plain[ours] = [
            _tensor(each, bool(max_batch_size), file, theirs, notes) for each in _list(fields, theirs)
        ]
    _read_versions(_message(fields, "version_policy"), plain, file)
    _read_batching(_message(fields, "dynamic_batching"), plain, file, notes)
    if isinstance(fields.get("sequence_batching"), dict):
        plain["sequence"], delay_us = read_sequence_batching(
            _message(fields, "sequence_batching"), file, notes
        )
        plain["max_queue_delay_us"] = delay_us
    _read_instances(_list(fields, "instance_group"), plain, file, notes)
    options = _read_parameters(fields.get("parameters"))
    if options:
        plain["options"] = options
    known = {
        "name", "platform", "backend", "default_model_filename", "max_batch_size", "input", "output",
        "version_policy", "dynamic_batching", "instance_group", "parameters", "model_transaction_policy",
        "sequence_batching",
        *_REFUSED,
    }  # fmt: skip
    for name in fields:
        if name in _IGNORED and fields[name]:
            notes.append(f"{file}: {name} has no effect")
        elif name not in known and name not in _IGNORED:
            notes.append(f"{file}: unknown field '{name}' has no effect")
    try:
        return msgspec.convert(plain, ModelConfiguration), notes
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def config_json(specification: Mapping[str, Any], configuration: ModelConfiguration, file: str) -> str:
    """Write a served model as Triton's ModelConfig in JSON, every scalar included.

    Args:
        specification: The final specification that is given to the core.
        configuration: Where it came from.
        file: Name of the artefact.
    """
    batches = specification["max_batch_size"] > 0

    def tensor(row: Sequence[Any]) -> dict[str, Any]:
        name, datatype, shape = row[:3]
        kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
        dims = list(shape[1:] if batches else shape)
        return {"name": name, "data_type": kind, "dims": dims, "is_shape_tensor": False}

    backend = specification["backend"]
    labels = {each.name: each.labels or "" for each in configuration.outputs}
    made: dict[str, Any] = {
        "name": specification["name"],
        "platform": specification["platform"],
        "backend": {"onnx": "onnxruntime"}.get(backend, backend),
        "runtime": "",
        "version_policy": _version_policy(configuration),
        "max_batch_size": specification["max_batch_size"],
        "input": [
            {
                **tensor(row),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": bool(row[3:] and row[3]),
                "is_non_linear_format_io": False,
            }
            for row in specification["inputs"]
        ],
        "output": [
            {**tensor(row), "label_filename": labels.get(row[0], ""), "is_non_linear_format_io": False}
            for row in specification["outputs"]
        ],
        "batch_input": [],
        "batch_output": [],
        "optimization": {"priority": "PRIORITY_DEFAULT", "eager_batching": False},
        "instance_group": [
            {
                "name": f"{specification['name']}_0",
                "kind": "KIND_CPU" if configuration.device == "cpu" else "KIND_GPU",
                "count": configuration.instances,
                "gpus": [] if configuration.device == "cpu" else [int(configuration.device[5:] or 0)],
                "secondary_devices": [],
                "profile": [],
                "passive": False,
                "host_policy": "",
            }
        ],
        "default_model_filename": file,
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {name: {"string_value": str(value)} for name, value in configuration.options.items()},
        "model_warmup": [],
    }
    if configuration.sequence is not None:
        made["sequence_batching"] = sequence_batching(
            configuration.sequence,
            specification["sequence"],
            specification["max_queue_delay_us"],
            batches=batches,
        )
    elif batches:
        made["dynamic_batching"] = {
            "preferred_batch_size": [specification["max_batch_size"]],
            "max_queue_delay_microseconds": specification["max_queue_delay_us"],
            "preserve_ordering": False,
            "priority_levels": 0,
            "default_priority_level": 0,
            "priority_queue_policy": {},
        }
    return json.dumps(made, separators=(",", ":"))


def _version_policy(configuration: ModelConfiguration) -> dict[str, Any]:
    if configuration.versions == "all":
        return {"all": {}}
    policy = configuration.versions
    if not isinstance(policy, str) and policy.specific is not None:
        return {"specific": {"versions": list(policy.specific)}}
    return {"latest": {"num_versions": 1 if isinstance(policy, str) else policy.latest or 1}}


def _snake(name: str) -> str:
    """Protobuf JSON also allows lowerCamelCase."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _list(fields: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = fields.get(name) or []
    return value if isinstance(value, list) else [value]


def _message(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return {_snake(key): each for key, each in value.items()} if isinstance(value, dict) else {}


def _integer(fields: Mapping[str, Any], name: str, file: str) -> int:
    value = fields.get(name, 0)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{file}: {name}: expected a number, got {value!r}") from error


def _tensor(
    each: Mapping[str, Any], batches: bool, file: str, field: str, notes: list[str]
) -> dict[str, Any]:
    name = str(each.get("name", ""))
    for refused in ("reshape", "allow_ragged_batch", "is_shape_tensor"):
        if refused in each and each[refused] is not False:
            raise ConfigurationError(f"{file}: {field} '{name}': {refused} is not supported yet")
    made: dict[str, Any] = {"name": name}
    if each.get("data_type"):
        datatype = str(each["data_type"]).removeprefix("TYPE_")
        made["datatype"] = "BYTES" if datatype == "STRING" else datatype
    dims = each.get("dims")
    if dims is not None:
        sizes = [int(size) for size in (dims if isinstance(dims, list) else [dims])]
        made["shape"] = [-1, *sizes] if batches else sizes
    if each.get("optional") is True:
        made["optional"] = True
    if each.get("label_filename"):
        made["labels"] = each["label_filename"]
    known = {"name", "data_type", "dims", "optional", "label_filename", "format", "reshape",
             "allow_ragged_batch", "is_shape_tensor", "is_non_linear_format_io"}  # fmt: skip
    notes.extend(
        f"{file}: {field} '{name}': unknown field '{other}' has no effect" for other in each.keys() - known
    )
    return made


def _read_versions(policy: Mapping[str, Any], plain: dict[str, Any], file: str) -> None:
    if "all" in policy:
        plain["versions"] = "all"
    elif "specific" in policy:
        versions = policy["specific"].get("versions", [])
        plain["versions"] = {
            "specific": [int(each) for each in (versions if isinstance(versions, list) else [versions])]
        }
    elif "latest" in policy:
        plain["versions"] = {"latest": _integer(policy["latest"], "num_versions", file) or 1}


def _read_batching(batching: Mapping[str, Any], plain: dict[str, Any], file: str, notes: list[str]) -> None:
    if delay := _integer(batching, "max_queue_delay_microseconds", file):
        plain["max_queue_delay_us"] = delay
    policy = batching.get("default_queue_policy")
    if isinstance(policy, dict) and (timeout := _integer(policy, "default_timeout_microseconds", file)):
        plain["default_timeout_us"] = timeout
    notes.extend(
        f"{file}: dynamic_batching.{name} has no effect"
        for name in ("priority_levels", "priority_queue_policy", "preserve_ordering")
        if batching.get(name)
    )


def _read_instances(
    groups: list[Mapping[str, Any]], plain: dict[str, Any], file: str, notes: list[str]
) -> None:
    if not groups:
        return
    plain["instances"] = max(1, sum(_integer(group, "count", file) or 1 for group in groups))
    first = groups[0]
    if first.get("kind") == "KIND_GPU":
        gpus = first.get("gpus", 0)
        plain["device"] = f"cuda:{gpus[0] if isinstance(gpus, list) and gpus else gpus or 0}"
    if len(groups) > 1:
        notes.append(f"{file}: only the first instance_group decides the device")


def _read_parameters(parameters: Any) -> dict[str, str]:
    """`parameters` is a map: a message of key and value in text, an object in JSON."""
    if not parameters:
        return {}
    if isinstance(parameters, dict) and "key" not in parameters:
        entries = list(parameters.items())
    else:
        rows = parameters if isinstance(parameters, list) else [parameters]
        entries = [(row.get("key"), row.get("value")) for row in rows]
    return {
        str(key): str(
            value.get("string_value", value.get("stringValue", "")) if isinstance(value, dict) else value
        )
        for key, value in entries
    }
