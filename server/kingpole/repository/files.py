"""The only way from a name to a file: nothing else in the server joins paths from outside."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from kingpole.configuration import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class RepositoryError(ValueError):
    """Something in a repository that is refused, with the reason."""


def check_name(name: str) -> str:
    """Give a model's name back if it is one.

    Raises:
        RepositoryError: When it is not.
    """
    if not _NAME.fullmatch(name) or name.endswith("\n"):
        raise RepositoryError(
            f"{name[:130]!r} is no model name: letters, digits, '.', '_', '-', at most 128, no '..'"
        )
    return name


def version_of(name: str) -> int | None:
    """The version that a directory's name stands for; None for any other directory.

    Source: Triton ignores directories that are not numbers or begin with 0.
    """
    return int(name) if _VERSION.fullmatch(name) else None


def resolve_inside(root: Path, *parts: str) -> Path:
    """Find a file or directory beneath a root.

    Links are followed only while they stay beneath the root. Only regular files and
    directories are given out.

    Args:
        root: A real path.
        parts: Names below it; a part may itself be a relative path.

    Returns:
        The real path.

    Raises:
        RepositoryError: For anything outside the root, or neither file nor directory.
        FileNotFoundError: When it does not exist.
    """
    for part in parts:
        if "\0" in part or "\\" in part or part.startswith("/") or ".." in part.split("/"):
            raise RepositoryError(f"{part!r} leaves the repository")
    real = Path(os.path.realpath(root.joinpath(*parts), strict=True))
    if real != root and root not in real.parents:
        raise RepositoryError(f"'{'/'.join(parts)}' is a link that leaves the repository")
    mode = real.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RepositoryError(f"'{'/'.join(parts)}' is neither a file nor a directory")
    return real
