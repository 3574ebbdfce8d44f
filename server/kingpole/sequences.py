"""What the core is told of a model's sequences: the owner's words joined with the model's own tensors.

A pure function of its sides but for the files of initial states.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kingpole.configuration import (
    ConfigurationError,
    ControlConfiguration,
    SequenceConfiguration,
    StateConfiguration,
)
from kingpole.signature import ELEMENT_BYTES, TensorSpec, format_shape

DEFAULT_CANDIDATES = 64
"""Sequences on one instance with the `oldest` strategy where the configuration does not say."""

_CONTROL_FORMATS = {"BOOL": "?", "INT32": "i", "FP32": "f", "UINT8": "B", "INT64": "q"}
_CORRELATION_DATATYPES = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


def sequence_specification(
    configuration: SequenceConfiguration,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    batches: bool,
    directory: Path,
) -> dict[str, Any]:
    """Make what the core is told.

    Args:
        configuration: What the owner wrote.
        inputs: The model's own inputs by name, controls and states included.
        outputs: The same of its outputs.
        batches: Whether requests are joined along dimension 0.
        directory: Where the files of initial states are.

    Raises:
        ConfigurationError: Naming the field, what was expected and what the model has.
    """
    taken = [state.output for state in configuration.states]
    if len(set(taken)) != len(taken):
        raise ConfigurationError("sequence.states: two states have the same output")
    candidates = None
    if configuration.strategy == "oldest":
        candidates = configuration.max_candidates or DEFAULT_CANDIDATES
    return {
        "max_candidates": candidates,
        "max_idle_us": configuration.max_idle_us,
        "controls": [_control(control, inputs) for control in configuration.controls],
        "states": [
            _state(state, inputs, outputs, batches=batches, directory=directory)
            for state in configuration.states
        ],
    }


def _find(field: str, name: str, tensors: Mapping[str, TensorSpec]) -> TensorSpec:
    if name not in tensors:
        raise ConfigurationError(f"{field} '{name}': the model has none of that name ({', '.join(tensors)})")
    return tensors[name]


def _control(control: ControlConfiguration, inputs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    field = "sequence.controls: input"
    spec = _find(field, control.input, inputs)
    values: list[list[int]] = [[], []]
    if control.kind == "correlation":
        if spec.datatype not in _CORRELATION_DATATYPES:
            raise ConfigurationError(
                f"{field} '{control.input}': expected one of {', '.join(_CORRELATION_DATATYPES)},"
                f" got {spec.datatype}"
            )
    else:
        form = _CONTROL_FORMATS.get(spec.datatype)
        if form is None:
            raise ConfigurationError(
                f"{field} '{control.input}': expected one of {', '.join(_CONTROL_FORMATS)},"
                f" got {spec.datatype}"
            )
        kind = float if form == "f" else int
        values = [list(struct.pack("<" + form, kind(value))) for value in (control.no, control.yes)]
    return {
        "name": control.input,
        "kind": control.kind,
        "datatype": spec.datatype,
        "shape": list(spec.shape),
        "values": values,
    }


def _state(
    state: StateConfiguration,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    batches: bool,
    directory: Path,
) -> dict[str, Any]:
    given = _find("sequence.states: input", state.input, inputs)
    taken = _find("sequence.states: output", state.output, outputs)
    element_bytes = ELEMENT_BYTES[given.datatype]
    if given.datatype != taken.datatype or element_bytes is None:
        raise ConfigurationError(
            f"sequence.states: '{state.input}' is {given.datatype} and '{state.output}' {taken.datatype},"
            " expected the same fixed-size datatype"
        )
    own = given.shape[1:] if batches else given.shape
    shape = state.shape if state.shape is not None else tuple(max(size, 1) for size in own)
    fits = len(shape) == len(own) and all(want in (-1, size) for size, want in zip(shape, own, strict=True))
    if not fits:
        raise ConfigurationError(
            f"sequence.states: '{state.input}': expected a shape that fits {format_shape(own)},"
            f" got {format_shape(shape)}"
        )
    full = (1, *shape) if batches else shape
    return {
        "input": state.input,
        "output": state.output,
        "datatype": given.datatype,
        "shape": list(full),
        "initial": _initial(state, directory, element_bytes, full),
    }


def _initial(
    state: StateConfiguration, directory: Path, element_bytes: int, shape: tuple[int, ...]
) -> list[int] | None:
    if state.initial is None:
        return None
    file = (directory / state.initial).resolve()
    if not file.is_relative_to(directory.resolve()):
        raise ConfigurationError(
            f"sequence.states: initial '{state.initial}' lies outside the model's directory"
        )
    expected = element_bytes
    for size in shape:
        expected *= size
    try:
        # One byte more than fits is enough to see that it does not.
        with file.open("rb") as opened:
            content = opened.read(expected + 1)
    except OSError as error:
        raise ConfigurationError(f"sequence.states: initial '{state.initial}': {error.strerror}") from error
    if len(content) != expected:
        raise ConfigurationError(
            f"sequence.states: initial '{state.initial}': expected {expected} bytes"
            f" for {format_shape(shape)}, got {'more' if len(content) > expected else len(content)}"
        )
    return list(content)
