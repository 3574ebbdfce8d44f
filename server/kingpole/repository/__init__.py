"""Repositories: directories that hold models. Knows files; may not know the core or any framework."""

from kingpole.repository.files import RepositoryError, check_name, resolve_inside
from kingpole.repository.labels import read_labels
from kingpole.repository.scan import PIPELINE, Artifact, Broken, scan
from kingpole.repository.uploads import Files, Upload

__all__ = [
    "PIPELINE", "Artifact", "Broken", "Files", "RepositoryError", "Upload", "check_name", "read_labels",
    "resolve_inside", "scan",
]  # fmt: skip
