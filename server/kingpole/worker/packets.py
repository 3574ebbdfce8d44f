"""The packets between server and worker: msgpack maps, one per SOCK_SEQPACKET packet."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

PACKET_BYTES = 65536
MESSAGE_CHARACTERS = 8000

TensorRow: TypeAlias = tuple[str, str, tuple[int, ...], int, int]
"""Name, datatype, shape, offset in the arena, nbytes."""


class _Packet(msgspec.Struct, tag_field="type", gc=False):
    pass


class Load(_Packet, tag="load"):
    """Load a model."""

    handle: int
    backend: str
    directory: str
    configuration: dict[str, Any]
    device: str = "cpu"


class Execute(_Packet, tag="execute"):
    """Run a batch; `free` is room in its arena for outputs, `parameters` has no or one entry per request."""

    sequence: int
    handle: int
    arena: int
    inputs: list[TensorRow]
    rows: int = 0
    request_rows: list[int] = []
    free: tuple[int, int] = (0, 0)
    parameters: list[dict[str, Any]] = []


class Cancel(_Packet, tag="cancel"):
    """Nobody wants the rest of a batch's parts."""

    sequence: int


class Unload(_Packet, tag="unload"):
    """Forget a model."""

    handle: int


class Release(_Packet, tag="release"):
    """An arena is no longer needed by the server."""

    arena: int


class Stop(_Packet, tag="stop"):
    """Finish and end."""


class Ready(_Packet, tag="ready"):
    """The worker is there."""

    pid: int
    python: str


class Loaded(_Packet, tag="loaded"):
    """A model is loaded, and what it reports of itself."""

    handle: int
    platform: str
    inputs: list[list[Any]]
    outputs: list[list[Any]]
    max_batch_size: int | None
    description: str
    notes: list[str]
    decoupled: bool = False


class Failed(_Packet, tag="failed"):
    """A model could not be loaded."""

    handle: int
    code: str
    message: str


class Part(_Packet, tag="part"):
    """One of several responses of a batch; `Done` or `Error` still follows."""

    sequence: int
    arena: int
    outputs: list[TensorRow]


class Done(_Packet, tag="done"):
    """A batch has run."""

    sequence: int
    arena: int
    outputs: list[TensorRow]
    execute_us: int


class Error(_Packet, tag="error"):
    """A batch has failed."""

    sequence: int
    code: str
    message: str


class Unloaded(_Packet, tag="unloaded"):
    """A model is forgotten."""

    handle: int


FromServer: TypeAlias = Load | Execute | Cancel | Unload | Release | Stop
FromWorker: TypeAlias = Ready | Loaded | Failed | Part | Done | Error | Unloaded
