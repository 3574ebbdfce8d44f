"""Join what the owner wrote with what the backend reports into the specification that is served.

A function of its two sides and the labels beside the model: no core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kingpole.configuration import ConfigurationError, TensorConfiguration
from kingpole.repository import Artifact, read_labels
from kingpole.repository.triton import config_json
from kingpole.sequences import sequence_specification
from kingpole.signature import DEFAULT_MAX_BATCH_SIZE, TensorSpec, format_shape, is_batchable


def merge(artifact: Artifact, reported: Mapping[str, Any]) -> dict[str, Any]:
    """Make the final specification of a version.

    Every field that the configuration leaves out is the backend's; a field that both
    give must agree.

    Args:
        artifact: The version on disk with its configuration.
        reported: The answer of the core to `open`.

    Raises:
        ConfigurationError: Naming the field, what was expected and what the model has.
    """
    configuration = artifact.configuration
    inputs = _tensors("input", configuration.inputs, reported["inputs"])
    outputs = _tensors("output", configuration.outputs, reported["outputs"])
    max_batch_size = _max_batch_size(
        configuration.max_batch_size, reported["max_batch_size"], inputs, outputs
    )
    decoupled = _decoupled(configuration.decoupled, bool(reported.get("decoupled")))
    sequence = None
    if configuration.sequence is not None:
        if decoupled:
            raise ConfigurationError(
                "sequence: a model that gives any number of responses cannot keep sequences"
            )
        sequence = sequence_specification(
            configuration.sequence,
            {spec.name: spec for spec in inputs},
            {spec.name: spec for spec in outputs},
            batches=max_batch_size > 0,
            directory=artifact.home,
        )
        # The server fills and keeps these; clients never see them.
        ours = {each["name"] for each in sequence["controls"]} | {
            each["input"] for each in sequence["states"]
        }
        inputs = [spec for spec in inputs if spec.name not in ours]
        kept = {each["output"] for each in sequence["states"]}
        outputs = [spec for spec in outputs if spec.name not in kept]
    specification: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "platform": configuration.platform or reported["platform"],
        "backend": artifact.backend,
        "inputs": [[*spec.row(), spec.optional] for spec in inputs],
        "outputs": [spec.row() for spec in outputs],
        "max_batch_size": max_batch_size,
        "decoupled": decoupled,
        "sequence": sequence,
        "default_timeout_us": configuration.default_timeout_us,
        "max_queue_delay_us": configuration.max_queue_delay_us,
        "description": (
            configuration.description
            if configuration.description is not None
            else reported.get("description", "")
        ),
        "labels": read_labels(artifact.labels),
        "warmup": configuration.warmup,
    }
    file = artifact.file.name if artifact.file else ""
    specification["config_json"] = config_json(specification, configuration, file)
    return specification


def _tensors(
    kind: str, configured: Sequence[TensorConfiguration], reported: Sequence[Sequence[Any]]
) -> list[TensorSpec]:
    by_name = {each.name: each for each in configured}
    if len(by_name) != len(configured):
        raise ConfigurationError(f"{kind}s: a name is given twice")
    merged = []
    for name, datatype, shape, *_ in reported:
        spec = TensorSpec(name, datatype, tuple(shape))
        ours = by_name.pop(name, None)
        merged.append(_merged(kind, spec, ours) if ours else spec)
    if by_name:
        known = ", ".join(str(row[0]) for row in reported)
        raise ConfigurationError(f"{kind} '{next(iter(by_name))}': the model has none of that name ({known})")
    return merged


def _merged(kind: str, spec: TensorSpec, ours: TensorConfiguration) -> TensorSpec:
    if ours.datatype is not None and ours.datatype != spec.datatype:
        raise ConfigurationError(
            f"{kind} '{spec.name}': datatype: expected {ours.datatype} as configured,"
            f" got {spec.datatype} from the model"
        )
    shape = spec.shape
    # An ONNX tensor of unknown rank is reported without dimensions.
    if ours.shape is not None and shape:
        fits = len(ours.shape) == len(shape) and all(
            theirs in (-1, mine) for mine, theirs in zip(ours.shape, shape, strict=True)
        )
        if not fits:
            raise ConfigurationError(
                f"{kind} '{spec.name}': shape: expected {format_shape(ours.shape)} as configured,"
                f" got {format_shape(shape)} from the model"
            )
    return TensorSpec(spec.name, spec.datatype, ours.shape or shape, ours.optional)


def _decoupled(configured: bool | None, reported: bool) -> bool:
    if configured not in (None, reported):
        kind = "any number of responses" if reported else "one response"
        raise ConfigurationError(
            f"decoupled: expected {str(configured).lower()} as configured, but the model gives {kind}"
        )
    return reported


def _max_batch_size(
    configured: int | None, reported: int | None, inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> int:
    batchable = is_batchable((*inputs, *outputs))
    if configured:
        for kind, specs in (("input", inputs), ("output", outputs)):
            for spec in specs:
                if spec.shape[:1] != (-1,):
                    raise ConfigurationError(
                        f"max_batch_size: expected a model that batches, but {kind} '{spec.name}' has shape"
                        f" {format_shape(spec.shape)} with a fixed first dimension"
                    )
        return configured
    if configured == 0 or not batchable:
        return 0
    return DEFAULT_MAX_BATCH_SIZE if reported is None else reported
