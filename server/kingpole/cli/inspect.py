"""`kingpole inspect`: what would be served from a path, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kingpole.cli import FAILURE, SUCCESS, USAGE, CommandError
from kingpole.configuration import (
    FILES,
    ConfigurationError,
    ModelConfiguration,
    TensorConfiguration,
    write_configuration,
)
from kingpole.merge import merge
from kingpole.opening import reason_of
from kingpole.repository import PIPELINE, Artifact, Broken, RepositoryError, scan


def inspect(path: str, *, write: bool) -> int:
    """Print the whole configuration of each model, and write it beside the model if asked."""
    try:
        found = scan(Path(path))
    except (OSError, RepositoryError) as error:
        raise CommandError(f"{path}: {reason_of(error)}", USAGE) from error
    if not found:
        raise CommandError(f"{path}: no model there")
    exit_code = SUCCESS
    for each in found:
        reason = each.reason if isinstance(each, Broken) else _inspect(each, write=write)
        if reason is not None:
            print(f"# {each.name}: cannot be served: {reason}")
            exit_code = FAILURE
    return exit_code


def _inspect(artifact: Artifact, *, write: bool) -> str | None:
    """Print one version; gives the reason when it cannot be served."""
    from kingpole.contract import ModelError, find_backend

    configuration = artifact.configuration
    plain: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "file": str(artifact.file) if artifact.file else None,
        "options": configuration.options,
    }
    for field, tensors in (("inputs", configuration.inputs), ("outputs", configuration.outputs)):
        plain[field] = [
            {"name": each.name, "datatype": each.datatype, "shape": each.shape, "optional": each.optional}
            for each in tensors
        ]
    if configuration.max_batch_size is not None:
        plain["max_batch_size"] = configuration.max_batch_size
    try:
        if artifact.backend == PIPELINE:
            reported = _pipeline(artifact)
        else:
            model = find_backend(artifact.backend).load(artifact.directory, plain, "cpu")
            signature = model.signature
            reported = {
                "inputs": [spec.row() for spec in signature.inputs],
                "outputs": [spec.row() for spec in signature.outputs],
                "max_batch_size": signature.max_batch_size,
                "platform": signature.platform,
                "description": signature.description,
                "notes": signature.notes,
            }
            model.close()
        merged = merge(artifact, reported)
    except (ModelError, ConfigurationError) as error:
        return reason_of(error)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything when it is imported
        return f"{type(error).__name__}: {error}"
    complete = _complete(artifact, merged)
    text = write_configuration(complete)
    print(f"# {artifact.name} version {artifact.version}: {artifact.file or artifact.directory}")
    for note in (*artifact.notes, *reported["notes"]):
        print(f"# {note}")
    print(text, end="")
    if write:
        _write(artifact, text)
    return None


def _pipeline(artifact: Artifact) -> dict[str, Any]:
    """What a pipeline says of itself; whether it fits its models shows when it is served."""
    configuration = artifact.configuration
    rows: dict[str, list[list[Any]]] = {"inputs": [], "outputs": []}
    for field, tensors in (("inputs", configuration.inputs), ("outputs", configuration.outputs)):
        for each in tensors:
            if each.datatype is None or each.shape is None:
                raise ConfigurationError(
                    f"{field[:-1]} '{each.name}': a pipeline must say the datatype and the shape"
                )
            rows[field].append([each.name, each.datatype, list(each.shape)])
    notes = ["its steps are checked when it is served beside their models"]
    return {**rows, "max_batch_size": 0, "platform": "ensemble", "description": "", "notes": notes}


def _complete(artifact: Artifact, merged: dict[str, object]) -> ModelConfiguration:
    """The configuration with everything filled in that was inferred."""
    import msgspec

    def tensors(field: str) -> tuple[TensorConfiguration, ...]:
        rows = merged[field]
        assert isinstance(rows, list)
        labels = {each.name: each.labels for each in artifact.configuration.outputs}
        return tuple(
            TensorConfiguration(
                name=row[0],
                datatype=row[1],
                shape=tuple(row[2]),
                optional=bool(row[3:] and row[3]),
                labels=labels.get(row[0]) if field == "outputs" else None,
            )
            for row in rows
        )

    file = artifact.file.relative_to(artifact.directory) if _is_below(artifact) and artifact.file else None
    return msgspec.structs.replace(
        artifact.configuration,
        backend=artifact.backend,
        file=str(file) if file else artifact.configuration.file,
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
        max_batch_size=merged["max_batch_size"],
    )


def _is_below(artifact: Artifact) -> bool:
    return artifact.file is not None and artifact.directory in artifact.file.parents


def _write(artifact: Artifact, text: str) -> None:
    if not artifact.home.is_dir():
        raise CommandError(
            f"{artifact.home.name} is a lone file: put it into a directory as model.onnx to configure it"
        )
    existing = [name for name in (*FILES, "config.pbtxt") if (artifact.home / name).exists()]
    if existing:
        raise CommandError(f"{artifact.home / existing[0]} is there already and was left as it is")
    (artifact.home / "model.yaml").write_text(text)
    print(f"# written to {artifact.home / 'model.yaml'}")
