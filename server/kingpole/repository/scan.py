"""Find the models beneath a path, with or without configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kingpole.configuration import FILES, ConfigurationError, ModelConfiguration, read_configuration
from kingpole.repository.files import RepositoryError, check_name, resolve_inside, version_of
from kingpole.repository.labels import find_labels
from kingpole.repository.triton import read_prototext

PIPELINE = "pipeline"
"""The backend of models that are made of others; nothing of them is a file."""

_ARTEFACTS = {"onnx": "model.onnx", "python": "model.py"}


@dataclass(frozen=True)
class Artifact:
    """One version of a model on disk, ready to be loaded.

    `stamp` changes when any of its files does; `notes` say what was inferred.
    """

    name: str
    version: str
    directory: Path
    file: Path | None
    backend: str
    configuration: ModelConfiguration
    home: Path
    notes: tuple[str, ...] = ()
    labels: Mapping[str, Path] = field(default_factory=dict, repr=False)
    stamp: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Broken:
    """Something that looks like a model but cannot be loaded, and why."""

    name: str
    reason: str


def scan(
    path: Path, override: tuple[ModelConfiguration, list[str]] | None = None, only: str | None = None
) -> list[Artifact | Broken]:
    """Find the models of a path: a model file, a model's directory, or a directory of either.

    Args:
        path: As the operator gave it; its own link is followed.
        override: Configuration that replaces what is on disk, for the model `only`.
        only: Look for the model of this name and no other.

    Raises:
        FileNotFoundError: When there is nothing at that path.
        RepositoryError: When it is neither a directory nor a model file.
    """
    root = Path(os.path.realpath(path, strict=True))
    if root.is_file():
        if root.suffix != ".onnx":
            raise RepositoryError(f"{path} is no model file: .onnx is")
        found = [_guard(root.stem, root.parent, root.name, override)]
    elif _is_model(root):
        found = [_guard(root.name, root, "", override)]
    else:
        found = []
        for entry in sorted(each.name for each in root.iterdir()):
            if entry.startswith((".", "lost+found")):
                continue
            name = entry.removesuffix(".onnx")
            if (only is not None and only != name) or not ((root / entry).is_dir() or name != entry):
                continue
            found.append(_guard(name, root, entry, override))
    flat = [each for group in found for each in group]
    return [each for each in flat if only is None or each.name == only]


def _guard(
    name: str, root: Path, entry: str, override: tuple[ModelConfiguration, list[str]] | None
) -> list[Artifact | Broken]:
    try:
        return list(_read(check_name(name), root, entry, override))
    except (RepositoryError, ConfigurationError) as error:
        return [Broken(name, str(error))]
    except OSError as error:
        return [Broken(name, f"cannot be read: {error.strerror or error}")]


def _is_model(directory: Path) -> bool:
    """A model's own directory, rather than a directory of models."""
    names = {each.name for each in directory.iterdir()}
    if names & {*FILES, "config.pbtxt"}:
        return True
    if names & set(_ARTEFACTS.values()):
        return len([name for name in names if name.endswith(".onnx")]) <= 1
    return any(
        version_of(name) is not None and (directory / name / artefact).exists()
        for name in names
        for artefact in _ARTEFACTS.values()
    )


def _read(
    name: str, root: Path, entry: str, override: tuple[ModelConfiguration, list[str]] | None
) -> list[Artifact]:
    home = resolve_inside(root, entry) if entry else root
    if home.is_file():
        notes = ["backend onnx, as it is an .onnx file"]
        artefact = resolve_inside(root, entry)
        configuration, more = override or (ModelConfiguration(), [])
        labels = find_labels(root, _below(root, home.parent), configuration)
        return [
            Artifact(name, "1", home.parent, artefact, "onnx", configuration, home, (*notes, *more), labels,
                     _stamp([artefact, *labels.values()]))
        ]  # fmt: skip
    configuration, notes, configuration_file = (*override, None) if override else _configuration(root, home)
    if configuration.name and configuration.name != name:
        # A directory that was named on the command line may be called anything.
        if entry:
            raise ConfigurationError(
                f"{configuration_file}: name: expected '{name}', the directory's, got '{configuration.name}'"
            )
        name = configuration.name
    versions = {
        version: child
        for child in (each.name for each in home.iterdir())
        if (version := version_of(child)) is not None and (home / child).is_dir()
    }
    made = []
    if versions:
        for version in configuration.select_versions(list(versions)):
            directory = resolve_inside(root, *_below(root, home), versions[version])
            made.append(_artifact(name, str(version), root, home, directory, configuration, notes))
    else:
        made.append(_artifact(name, "1", root, home, home, configuration, notes))
    return made


def _artifact(
    name: str,
    version: str,
    root: Path,
    home: Path,
    directory: Path,
    configuration: ModelConfiguration,
    notes: list[str],
) -> Artifact:
    notes = list(notes)
    backend, filename = configuration.backend, configuration.file
    if configuration.steps and backend in (None, PIPELINE):
        backend = PIPELINE
    elif configuration.steps:
        raise ConfigurationError(f"steps: they belong to a pipeline, not to the backend '{backend}'")
    present = sorted(each.name for each in directory.iterdir())
    if backend is None:
        for candidate, usual in _ARTEFACTS.items():
            if (filename or usual) in present and (filename or usual).endswith(Path(usual).suffix):
                backend = candidate
                notes.append(f"backend {backend}, as there is a {filename or usual}")
                break
    if filename is None and backend in _ARTEFACTS:
        filename = _ARTEFACTS[backend]
    if backend in (None, "onnx") and filename not in present:
        single = [each for each in present if each.endswith(".onnx")]
        if len(single) == 1 and configuration.file is None:
            backend, filename = "onnx", single[0]
            notes.append(f"backend onnx, as {filename} is the only model file")
    if backend is None:
        raise RepositoryError("no model file: expected model.onnx or model.py, or `backend` in model.yaml")
    file = None
    if filename is not None:
        below = _below(root, directory)
        try:
            file = resolve_inside(root, *below, filename)
        except FileNotFoundError as error:
            where = "/".join((*below, filename))
            raise RepositoryError(f"version {version}: {where} is missing") from error
    files = [resolve_inside(root, *_below(root, directory), each) for each in present]
    files += [home / each for each in (*FILES, "config.pbtxt") if (home / each).exists()]
    labels = find_labels(root, _below(root, home), configuration)
    files += labels.values()
    return Artifact(
        name, version, directory, file, backend, configuration, home, tuple(notes), labels, _stamp(files)
    )


def _configuration(root: Path, home: Path) -> tuple[ModelConfiguration, list[str], str | None]:
    for name in FILES:
        if (home / name).exists():
            return read_configuration(resolve_inside(root, *_below(root, home), name)), [], name
    if (home / "config.pbtxt").exists():
        path = resolve_inside(root, *_below(root, home), "config.pbtxt")
        configuration, notes = read_prototext(path.read_text())
        return configuration, notes, "config.pbtxt"
    return ModelConfiguration(), [], None


def _below(root: Path, path: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts


def _stamp(files: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (str(file), status.st_mtime_ns, status.st_size)
        for file in sorted(set(files))
        if file.is_file() and (status := file.stat())
    )
