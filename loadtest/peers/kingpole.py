"""Kingpole itself, from this checkout, with the model inline or in a shared worker process."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from loadtest.models import MAX_BATCH_SIZE, BenchModel
from loadtest.peers.peer import Batches, Transport
from loadtest.peers.triton import open_inference_batches
from loadtest.processes import REPOSITORY_ROOT, Launch, free_port

_SOURCES = ("server", "backends", "clients/python")


class Kingpole:
    """Kingpole with one reactor."""

    def __init__(self, worker: Literal["inline", "shared"], reactors: int = 1) -> None:
        self._worker = worker
        self._reactors = reactors
        self.name = "kingpole" if worker == "inline" else "kingpole shared"
        self._port = 0

    def missing(self) -> str | None:
        """Name what must be built first."""
        if list((REPOSITORY_ROOT / "server" / "kingpole").glob("_core*.so")):
            return None
        return "kingpole._core is not built; run: make setup"

    def transport(self, wanted: Transport) -> Transport | None:
        """Everything but raw bytes."""
        return None if wanted == "raw" else wanted

    def launch(self, model: BenchModel | None, directory: Path) -> Launch:
        """Lay out a repository of one model, or of none."""
        if model is not None:
            version = directory / model.name / "1"
            version.mkdir(parents=True)
            shutil.copy(model.file, version / "model.onnx")
            (directory / model.name / "model.yaml").write_text(
                f"worker: {self._worker}\nmax_batch_size: {MAX_BATCH_SIZE}\n"
            )
        self._port = free_port()
        command = [
            *(sys.executable, "-m", "kingpole", "serve", str(directory)),
            *("--listen", f"127.0.0.1:{self._port}", "--reactors", str(self._reactors)),
            *("--management", f"127.0.0.1:{free_port()}"),
        ]
        if model is None:
            command += ["--control-mode", "explicit"]  # the only mode that may start with nothing
        environment = {"PYTHONPATH": ":".join(str(REPOSITORY_ROOT / source) for source in _SOURCES)}
        return Launch(command, environment, self._port, "/v2/health/ready")

    @property
    def port(self) -> int:
        """The one port of all protocols. Valid after `launch`."""
        return self._port

    def url(self, model: BenchModel, transport: Transport) -> str:
        """Tell where requests go."""
        if transport == "grpc":
            return f"http://127.0.0.1:{self._port}/inference.GRPCInferenceService/ModelInfer"
        return f"http://127.0.0.1:{self._port}/v2/models/{model.name}/infer"

    def batches(self, model: BenchModel) -> Batches | None:
        """Ask the statistics extension."""
        return open_inference_batches(self._port, model)
