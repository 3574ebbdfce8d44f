"""Models that come with a request: files into a directory of their own, which ends with the model.

Every name is checked before anything is written, and nothing is written outside the directory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kingpole.repository.files import RepositoryError, check_name, version_of

PREFIX = "file:"
"""What the name of a load parameter begins with that holds a file."""

_MAX_FILES = 256
_MAX_DEPTH = 8
_MAX_NAME = 255

Files = Sequence[tuple[str, bytes]]
"""The content of each file by the name of its parameter, `file:<version>/<path>`."""


class Upload:
    """A repository of one model, made of a request's files. Removed when nothing uses the model."""

    def __init__(self, model: str, files: Files) -> None:
        """Write the files.

        Raises:
            RepositoryError: Naming the file whose name leads elsewhere.
            OSError: When they cannot be written.
        """
        check_name(model)
        if len(files) > _MAX_FILES:
            raise RepositoryError(f"{len(files)} files came with the model, {_MAX_FILES} are allowed")
        placed = [(place(name), content) for name, content in files]
        paths = {parts for parts, _ in placed}
        for name, _ in files:
            parts = place(name)
            if any(parts[:depth] in paths for depth in range(1, len(parts))):
                raise RepositoryError(f"{name!r} lies beneath another file")
        # Readable by nobody else, and under a name that nobody can foresee.
        self.root = Path(tempfile.mkdtemp(prefix="kingpole-")).resolve()
        try:
            for parts, content in placed:
                file = self.root.joinpath(model, *parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        except BaseException:
            self.remove()
            raise

    def holds(self, path: Path) -> bool:
        """Whether a path is one of these files."""
        return self.root in path.parents

    def remove(self) -> None:
        """Remove the files."""
        # What somebody else removed before is as good as removed.
        shutil.rmtree(self.root, ignore_errors=True)


def place(parameter: str) -> tuple[str, ...]:
    """Where a file lies in its model's directory: the version and the names below it.

    Raises:
        RepositoryError: When the parameter is not `file:<version>/<path>`, or the path leads elsewhere.
    """
    parts = tuple(parameter.removeprefix(PREFIX).split("/"))
    shown = f"{parameter[:130]!r}"
    if len(parts) < 2 or version_of(parts[0]) is None:
        raise RepositoryError(f"parameter {shown}: expected file:<version>/<path>, with a version such as 1")
    if len(parts) > _MAX_DEPTH or any(len(part.encode(errors="replace")) > _MAX_NAME for part in parts):
        raise RepositoryError(f"parameter {shown}: the path is too long")
    for part in parts:
        if part in ("", ".", "..") or "\\" in part or not part.isprintable():
            raise RepositoryError(f"parameter {shown}: the path must stay below the version's directory")
    return parts
