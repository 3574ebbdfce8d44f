"""What the classes of an output are called: one name a line of a text file beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kingpole.configuration import ModelConfiguration
from kingpole.repository.files import RepositoryError, resolve_inside

_MAX_BYTES = 16 << 20


def find_labels(root: Path, below: tuple[str, ...], configuration: ModelConfiguration) -> dict[str, Path]:
    """The file of each output that has one, by the output's name.

    Args:
        root: The repository's real path.
        below: Names from there to the model's directory.
        configuration: The model's.

    Raises:
        RepositoryError: When a file is missing, or outside the repository.
    """
    found = {}
    for output in configuration.outputs:
        if not output.labels:
            continue
        try:
            file = resolve_inside(root, *below, output.labels)
        except FileNotFoundError as error:
            raise RepositoryError(f"labels of output '{output.name}': {output.labels} is missing") from error
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            raise RepositoryError(
                f"labels of output '{output.name}': {output.labels} is no file of at most {_MAX_BYTES} bytes"
            )
        found[output.name] = file
    return found


def read_labels(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """The labels of each output.

    Raises:
        RepositoryError: When a file is not UTF-8.
    """
    read = {}
    for output, file in files.items():
        try:
            read[output] = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise RepositoryError(f"labels of output '{output}': {file.name} is not UTF-8") from error
    return read
