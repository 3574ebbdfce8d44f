"""Triton's model configuration: read from `config.pbtxt` or protobuf JSON, and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kingpole.configuration import ConfigurationError, ModelConfiguration, StepConfiguration
from kingpole.repository.prototext import PrototextError, parse
from kingpole.repository.triton_sequences import read_sequence_batching, sequence_batching

_BACKENDS = {"onnxruntime": "onnx"}
_PLATFORMS = {"onnxruntime_onnx": "onnx", "ensemble": "pipeline"}
# What would change what a model answers, and cannot be done.
_REFUSED = {
    "batch_input": "inputs made of a batch's sizes are not supported",
    "batch_output": "outputs scattered over a batch are not supported",
    "model_repository_agents": "repository agents are not supported",
    "model_operations": "libraries of operators are not loaded",
}
# What only changes how fast it answers, or is beside it.
_IGNORED = {
    "optimization": "the backend decides, and its options are in parameters",
    "metric_tags": "metrics are labeled by model and version",
    "model_metrics": "the buckets of histograms are fixed",
    "response_cache": "responses are not cached",
    "runtime": "the backend is chosen by its name",
    "cc_model_filenames": "there is one file for every device",
    "model_warmup": "models are warmed up with generated inputs",
}
# Maps from names that are the owner's, not protobuf's.
_MAPS = frozenset(
    {"input_map", "output_map", "parameters", "metric_tags", "cc_model_filenames", "priority_queue_policy"}
)
_KNOWN = frozenset(
    {"name", "platform", "backend", "default_model_filename", "max_batch_size", "input", "output",
     "version_policy", "dynamic_batching", "instance_group", "parameters", "model_transaction_policy",
     "sequence_batching", "ensemble_scheduling"}
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
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"parameter 'config' is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError("parameter 'config' must be a JSON object")
    return from_triton(fields, "parameter 'config'")


def from_triton(fields: Mapping[str, Any], file: str) -> tuple[ModelConfiguration, list[str]]:
    """Turn Triton's fields into our configuration.

    Raises:
        ConfigurationError: For what cannot be served as asked.
    """
    fields = _snake_keys(fields)
    notes: list[str] = []
    for name, reason in _REFUSED.items():
        if fields.get(name):
            raise ConfigurationError(f"{file}: {name}: {reason}")
    max_batch_size = _integer(fields, "max_batch_size", file)
    plain: dict[str, Any] = {}
    if fields.get("name"):
        plain["name"] = fields["name"]
    _read_backend(fields, plain, file)
    if fields.get("default_model_filename"):
        plain["file"] = fields["default_model_filename"]
    if max_batch_size:
        plain["max_batch_size"] = max_batch_size
    # Absent and 0 are the same in proto3; with tensors given it means the dims are whole shapes.
    elif fields.get("input") or fields.get("output"):
        plain["max_batch_size"] = 0
    for ours, theirs in (("inputs", "input"), ("outputs", "output")):
        plain[ours] = [
            _tensor(each, bool(max_batch_size), file, theirs, notes) for each in _list(fields, theirs, file)
        ]
    policy = _message(fields, "model_transaction_policy", file)
    if "decoupled" in policy:
        plain["decoupled"] = policy["decoupled"]
    _read_versions(_message(fields, "version_policy", file), plain, file)
    _read_batching(_message(fields, "dynamic_batching", file), plain, file, notes)
    if "sequence_batching" in fields:
        _read_sequences(_message(fields, "sequence_batching", file), plain, file, notes)
    if "ensemble_scheduling" in fields:
        _read_steps(_message(fields, "ensemble_scheduling", file), plain, file)
    _read_instances(_list(fields, "instance_group", file), plain, file, notes)
    options = _read_parameters(fields, file)
    if options:
        plain["options"] = options
    for name, value in fields.items():
        if name in _IGNORED and value:
            notes.append(f"{file}: {name} has no effect: {_IGNORED[name]}")
        elif name not in _KNOWN and name not in _REFUSED and name not in _IGNORED:
            notes.append(f"{file}: unknown field '{name}' has no effect")
    try:
        return msgspec.convert(plain, ModelConfiguration), notes
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def _read_backend(fields: Mapping[str, Any], plain: dict[str, Any], file: str) -> None:
    platform, backend = str(fields.get("platform") or ""), str(fields.get("backend") or "")
    if backend or platform:
        plain["backend"] = _BACKENDS.get(backend, backend) or _PLATFORMS.get(platform)
        if plain["backend"] is None:
            raise ConfigurationError(f"{file}: platform '{platform}' is not supported")


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
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": False},
            "output_pinned_memory": {"enable": False},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
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
        "model_transaction_policy": {"decoupled": bool(specification.get("decoupled"))},
    }
    if configuration.steps:
        made["ensemble_scheduling"] = {"step": [_step(each) for each in configuration.steps]}
    elif configuration.sequence is not None:
        made["sequence_batching"] = sequence_batching(
            configuration.sequence,
            specification["sequence"],
            specification["max_queue_delay_us"],
            batches=batches,
        )
    # What answers one request at a time forms no batches, whatever its shapes.
    elif batches and not specification.get("decoupled"):
        made["dynamic_batching"] = {
            "preferred_batch_size": [specification["max_batch_size"]],
            "max_queue_delay_microseconds": specification["max_queue_delay_us"],
            "preserve_ordering": False,
            "priority_levels": 0,
            "default_priority_level": 0,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": specification.get("default_timeout_us") or 0,
                "allow_timeout_override": True,
                "max_queue_size": 0,
            },
            "priority_queue_policy": {},
        }
    return json.dumps(made, separators=(",", ":"))


def _step(step: StepConfiguration) -> dict[str, Any]:
    """A step as Triton has it, which knows no conditions."""
    return {
        "model_name": step.model,
        "model_version": step.version or -1,
        "input_map": dict(step.inputs),
        "output_map": dict(step.outputs),
        "model_namespace": "",
    }


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


def _snake_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return _snake_keys(value)
        return [of(each) for each in value] if isinstance(value, list) else value

    renamed = {_snake(name): value for name, value in fields.items()}
    return {name: value if name in _MAPS else of(value) for name, value in renamed.items()}


def _wrong(file: str, name: str, expected: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{file}: {name}: expected {expected}, got {str(value)[:80]!r}")


def _list(fields: Mapping[str, Any], name: str, file: str) -> list[Mapping[str, Any]]:
    """The messages of a repeated field; one that occurs once is no list in text."""
    value = fields.get(name) or []
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, dict):
            raise _wrong(file, name, "a message", each)
    return values


def _message(fields: Mapping[str, Any], name: str, file: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(file, name, "one message", value)
    return value


def _number(value: Any, name: str, file: str) -> int:
    try:
        # Protobuf's JSON writes 64-bit numbers as text.
        if not isinstance(value, bool):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong(file, name, "a number", value)


def _integer(fields: Mapping[str, Any], name: str, file: str) -> int:
    return _number(fields.get(name, 0), name, file)


def _integers(fields: Mapping[str, Any], name: str, file: str) -> list[int]:
    value = fields.get(name, [])
    return [_number(each, name, file) for each in (value if isinstance(value, list) else [value])]


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
    if "dims" in each:
        sizes = _integers(each, "dims", f"{file}: {field} '{name}'")
        made["shape"] = [-1, *sizes] if batches else sizes
    if each.get("optional") is True:
        made["optional"] = True
    if each.get("label_filename"):
        made["labels"] = each["label_filename"]
    if each.get("format", "FORMAT_NONE") != "FORMAT_NONE":
        notes.append(f"{file}: {field} '{name}': format has no effect: dims say where the channels are")
    if each.get("is_non_linear_format_io"):
        notes.append(f"{file}: {field} '{name}': is_non_linear_format_io has no effect: tensors are linear")
    known = {"name", "data_type", "dims", "optional", "label_filename", "format", "reshape",
             "allow_ragged_batch", "is_shape_tensor", "is_non_linear_format_io"}  # fmt: skip
    notes.extend(
        f"{file}: {field} '{name}': unknown field '{other}' has no effect"
        for other in sorted(each.keys() - known)
    )
    return made


def _read_versions(policy: Mapping[str, Any], plain: dict[str, Any], file: str) -> None:
    if "all" in policy:
        plain["versions"] = "all"
    elif "specific" in policy:
        plain["versions"] = {"specific": _integers(_message(policy, "specific", file), "versions", file)}
    elif "latest" in policy:
        plain["versions"] = {"latest": _integer(_message(policy, "latest", file), "num_versions", file) or 1}


def _read_batching(batching: Mapping[str, Any], plain: dict[str, Any], file: str, notes: list[str]) -> None:
    if delay := _integer(batching, "max_queue_delay_microseconds", file):
        plain["max_queue_delay_us"] = delay
    policy = _message(batching, "default_queue_policy", file)
    if timeout := _integer(policy, "default_timeout_microseconds", file):
        plain["default_timeout_us"] = timeout
    ignored = {
        "preferred_batch_size": "a batch is what has arrived when an instance is free",
        "priority_levels": "requests are ordered by their deadlines",
        "default_priority_level": "requests are ordered by their deadlines",
        "priority_queue_policy": "requests are ordered by their deadlines",
        "preserve_ordering": "responses go out as they are ready",
    }
    notes.extend(
        f"{file}: dynamic_batching.{name} has no effect: {reason}"
        for name, reason in ignored.items()
        if batching.get(name)
    )
    if policy.get("timeout_action") == "DELAY":
        notes.append(
            f"{file}: dynamic_batching: timeout_action DELAY has no effect: late requests are refused"
        )
    if policy.get("max_queue_size"):
        notes.append(f"{file}: dynamic_batching: max_queue_size has no effect: the queue is limited in bytes")


def _read_sequences(batching: Mapping[str, Any], plain: dict[str, Any], file: str, notes: list[str]) -> None:
    try:
        plain["sequence"], plain["max_queue_delay_us"] = read_sequence_batching(batching, file, notes)
    except ConfigurationError:
        raise
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{file}: sequence_batching: a field has the wrong type: {error}") from error


def _read_steps(scheduling: Mapping[str, Any], plain: dict[str, Any], file: str) -> None:
    """An ensemble's steps."""
    names: dict[str, int] = {}
    steps = []
    for each in _list(scheduling, "step", file):
        model = str(each.get("model_name", ""))
        # The same model may be asked more than once.
        names[model] = names.get(model, 0) + 1
        step: dict[str, Any] = {
            "model": model,
            "name": model if names[model] == 1 else f"{model} ({names[model]})",
            "inputs": {key: str(value) for key, value in _entries(each, "input_map", file)},
            "outputs": {key: str(value) for key, value in _entries(each, "output_map", file)},
        }
        version = _integer(each, "model_version", file) if "model_version" in each else -1
        if version > 0:
            step["version"] = version
        steps.append(step)
    plain["steps"] = steps


def _read_instances(
    groups: list[Mapping[str, Any]], plain: dict[str, Any], file: str, notes: list[str]
) -> None:
    if not groups:
        return
    plain["instances"] = max(1, sum(_integer(group, "count", file) or 1 for group in groups))
    first = groups[0]
    gpus = _integers(first, "gpus", file)
    if first.get("kind") == "KIND_GPU":
        plain["device"] = f"cuda:{gpus[0] if gpus else 0}"
    if len(groups) > 1 or len(gpus) > 1:
        notes.append(f"{file}: only the first GPU of the first instance_group decides the device")
    notes.extend(
        f"{file}: instance_group.{name} has no effect"
        for name in ("rate_limiter", "profile", "passive", "host_policy", "secondary_devices")
        if any(group.get(name) for group in groups)
    )


def _read_parameters(fields: Mapping[str, Any], file: str) -> dict[str, str]:
    return {
        key: str(
            value.get("string_value", value.get("stringValue", "")) if isinstance(value, dict) else value
        )
        for key, value in _entries(fields, "parameters", file)
    }


def _entries(fields: Mapping[str, Any], name: str, file: str) -> list[tuple[str, Any]]:
    """The entries of a map: a message of key and value for each in text, one object in JSON."""
    value = fields.get(name) or {}
    is_entry = isinstance(value, dict) and "key" in value and value.keys() <= {"key", "value"}
    if isinstance(value, dict) and not is_entry:
        return list(value.items())
    return [(str(row.get("key", "")), row.get("value", "")) for row in _list(fields, name, file)]
