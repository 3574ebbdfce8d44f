"""One version from its files to being served: opened by the core, merged with its configuration, warmed up.

Knows the core's calls and the configuration; may not know which versions there are.
"""

from __future__ import annotations

import json
import os
from typing import Any

from kingpole.configuration import as_plain
from kingpole.core_calls import Core
from kingpole.merge import merge
from kingpole.repository import Artifact


def open_and_serve(
    core: Core, artifact: Artifact, worker: str | None
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Load, merge, warm up and publish. Blocks for as long as that takes.

    Args:
        core: What serves.
        artifact: What was found of the version.
        worker: Where it runs if its configuration does not say.

    Returns:
        The core's handle, the specification, and what the core says of serving it.
    """
    configuration = artifact.configuration
    file = str(artifact.file) if artifact.file else None
    request = {
        "name": artifact.name,
        "version": artifact.version,
        "backend": artifact.backend,
        "directory": str(artifact.directory),
        "file": file,
        "worker": worker if worker and configuration.worker == "auto" else configuration.worker,
        "instances": configuration.instances,
        "device": configuration.device,
        "configuration": {
            **as_plain(configuration),
            "name": artifact.name,
            "version": artifact.version,
            "file": file,
        },
    }
    opened = json.loads(core.open(json.dumps(request).encode()))
    try:
        specification = merge(artifact, opened)
        served = json.loads(core.serve(opened["handle"], json.dumps(specification).encode()))
    except BaseException:
        core.close(opened["handle"])
        raise
    return opened["handle"], {**opened, **specification}, served


def describe(artifact: Artifact, opened: dict[str, Any], served: dict[str, Any]) -> list[str]:
    """Say what is served, where it runs, and what was inferred."""
    tensors = [
        ", ".join(f"{row[0]} {row[1]}{row[2]}".replace(", ", ",") for row in opened[field])
        for field in ("inputs", "outputs")
    ]
    rows = opened["max_batch_size"]
    batching = f"batches up to {rows} rows" if rows else "does not batch"
    profile = ", ".join(f"{size} rows {round(us)} \u00b5s" for size, us in served.get("profile", []))
    lines = [
        f"{artifact.name} version {artifact.version}: ready, {artifact.backend},"
        f" runs {served['placed']}, {batching}",
        f"  {tensors[0]} -> {tensors[1]}",
    ]
    if profile:
        lines.append(f"  warm: {profile}")
    notes = dict.fromkeys((*artifact.notes, *opened.get("notes", []), *served.get("notes", [])))
    return [*lines, *(f"  {note}" for note in notes)]


def reason_of(error: Exception) -> str:
    """The sentence in an error: the core's come as code and message."""
    if type(error).__name__ == "CoreError" and len(error.args) == 2:
        return str(error.args[1])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {os.fspath(error.filename) if error.filename else ''}".rstrip(": ")
    return str(error) or type(error).__name__
