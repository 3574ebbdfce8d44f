"""Triton's `sequence_batching`: read from `config.pbtxt`, and written for clients that ask for it.

Knows the two forms only; may not know files or the core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kingpole.configuration import ConfigurationError, SequenceConfiguration

_KINDS = {
    "CONTROL_SEQUENCE_START": "start",
    "CONTROL_SEQUENCE_END": "end",
    "CONTROL_SEQUENCE_READY": "ready",
    "CONTROL_SEQUENCE_CORRID": "correlation",
}
_VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")
_REFUSED = ("iterative_sequence",)
_UNUSED = ("preferred_batch_size", "preserve_ordering", "minimum_slot_utilization")


def read_sequence_batching(
    fields: Mapping[str, Any], file: str, notes: list[str]
) -> tuple[dict[str, Any], int]:
    """Turn the message into the fields of our `sequence`.

    Returns:
        These fields, and the queue delay in microseconds that the strategy asks for.

    Raises:
        ConfigurationError: For what cannot be served as asked.
    """
    where = f"{file}: sequence_batching"
    fields = _snake_case(fields)
    for name in _REFUSED:
        if fields.get(name):
            raise ConfigurationError(f"{where}.{name}: not supported")
    made: dict[str, Any] = {
        "controls": [_control(each, where) for each in _all(fields, "control_input")],
        "states": [_state(each, where) for each in _all(fields, "state")],
    }
    if idle := fields.get("max_sequence_idle_microseconds"):
        made["max_idle_us"] = _number(idle, where, "max_sequence_idle_microseconds")
    oldest = fields.get("oldest")
    strategy = oldest if isinstance(oldest, dict) else fields.get("direct")
    strategy = strategy if isinstance(strategy, dict) else {}
    if isinstance(oldest, dict):
        made["strategy"] = "oldest"
        if candidates := oldest.get("max_candidate_sequences"):
            made["max_candidates"] = _number(candidates, where, "max_candidate_sequences")
    notes.extend(f"{where}: {name} has no effect" for name in _UNUSED if strategy.get(name))
    delay = strategy.get("max_queue_delay_microseconds", 0)
    return made, _number(delay, where, "max_queue_delay_microseconds")


def _number(value: Any, where: str, field: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}.{field}: expected a number, got {value!r}") from error


def _snake_case(value: Any) -> Any:
    """The same with lower_case names throughout: protobuf JSON allows both forms."""
    if isinstance(value, dict):
        names = {
            name: "".join(f"_{each.lower()}" if each.isupper() else each for each in name) for name in value
        }
        return {names[name]: _snake_case(each) for name, each in value.items()}
    return [_snake_case(each) for each in value] if isinstance(value, list) else value


def _all(fields: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = fields.get(name) or []
    return value if isinstance(value, list) else [value]


def _control(each: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = str(each.get("name", ""))
    controls = _all(each, "control")
    if len(controls) != 1:
        raise ConfigurationError(
            f"{where}: control_input '{name}': expected one control, got {len(controls)}"
        )
    kind = str(controls[0].get("kind", "CONTROL_SEQUENCE_START"))
    if kind not in _KINDS:
        raise ConfigurationError(
            f"{where}: control_input '{name}': expected one of {', '.join(_KINDS)}, got {kind}"
        )
    made: dict[str, Any] = {"input": name, "kind": _KINDS[kind]}
    for field in _VALUES:
        values = controls[0].get(field)
        if isinstance(values, list) and len(values) == 2:
            made["no"], made["yes"] = (float(value) for value in values)
    return made


def _state(each: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = str(each.get("input_name", ""))
    made: dict[str, Any] = {"input": name, "output": str(each.get("output_name", ""))}
    initial = _all(each, "initial_state")
    if len(initial) > 1:
        raise ConfigurationError(f"{where}: state '{name}': expected one initial_state, got {len(initial)}")
    if initial:
        dims = initial[0].get("dims")
        if dims is not None:
            sizes = dims if isinstance(dims, list) else [dims]
            made["shape"] = [_number(size, where, "initial_state.dims") for size in sizes]
        if file := initial[0].get("data_file"):
            made["initial"] = f"initial_state/{file}"
    return made


def sequence_batching(
    configuration: SequenceConfiguration, specification: Mapping[str, Any], delay_us: int, *, batches: bool
) -> dict[str, Any]:
    """Write the message as protobuf JSON.

    Args:
        configuration: What the owner wrote.
        specification: What the core was told of it.
        delay_us: The queue delay of the model.
        batches: Whether requests are joined; the dims of Triton leave their rows out.
    """
    datatypes = {each["name"]: each["datatype"] for each in specification["controls"]}
    controls = []
    kinds = {ours: theirs for theirs, ours in _KINDS.items()}
    for control in configuration.controls:
        made: dict[str, Any] = {"kind": kinds[control.kind]}
        datatype = datatypes[control.input]
        if control.kind == "correlation":
            made["data_type"] = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
        elif datatype == "BOOL":
            made["bool_false_true"] = [bool(control.no), bool(control.yes)]
        elif datatype == "FP32":
            made["fp32_false_true"] = [control.no, control.yes]
        else:
            made["int32_false_true"] = [int(control.no), int(control.yes)]
        controls.append({"name": control.input, "control": [made]})
    states: Sequence[Mapping[str, Any]] = specification["states"]
    made_states = [
        {
            "input_name": each["input"],
            "output_name": each["output"],
            "data_type": f"TYPE_{each['datatype']}",
            "dims": each["shape"][1:] if batches else each["shape"],
            "initial_state": [],
        }
        for each in states
    ]
    strategy: dict[str, Any] = {"max_queue_delay_microseconds": delay_us}
    if configuration.strategy == "oldest":
        strategy["max_candidate_sequences"] = specification["max_candidates"]
    return {
        configuration.strategy: strategy,
        "max_sequence_idle_microseconds": configuration.max_idle_us,
        "control_input": controls,
        "state": made_states,
    }
