"""Repositories: directories that hold models. Knows files; may not know the core or any framework."""

from kingpole.repository.files import RepositoryError, check_name, resolve_inside
from kingpole.repository.scan import Artifact, Broken, scan

__all__ = ["Artifact", "Broken", "RepositoryError", "check_name", "resolve_inside", "scan"]
