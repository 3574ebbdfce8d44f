"""What the bench knows of a server under load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from loadtest.models import BenchModel
from loadtest.processes import REPOSITORY_ROOT, Launch

Transport = Literal["grpc", "json", "raw"]

PEER_DIRECTORY = REPOSITORY_ROOT / ".cache" / "peers"


@dataclass(frozen=True)
class Batches:
    """Counters since the server's start: rows inferred, and batches they were executed in."""

    rows: float
    executions: float


class Peer(Protocol):
    """A server that can be launched with one model and asked over some transports.

    `name` is what the report calls it. One launch serves exactly one model, so that start-up
    and memory are those of that model.
    """

    name: str

    def missing(self) -> str | None:
        """Name what must be installed first, with the command that does it; None when all is there."""

    def transport(self, wanted: Transport) -> Transport | None:
        """Choose the way to ask: the wanted one, this server's only one, or None if it has no counterpart."""

    def launch(self, model: BenchModel, directory: Path) -> Launch:
        """Lay the model out below an empty directory and say how to start the server on it."""

    def url(self, model: BenchModel, transport: Transport) -> str:
        """Tell where requests go. Valid after `launch`."""

    def batches(self, model: BenchModel) -> Batches | None:
        """Ask the running server for its batch counters; None if it has none."""
