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
    handle: int
    backend: str
    directory: str
    configuration: dict[str, Any]
    device: str = "cpu"


class Execute(_Packet, tag="execute"):
    sequence: int
    handle: int
    arena: int
    inputs: list[TensorRow]
    rows: int = 0
    request_rows: list[int] = []
    free: tuple[int, int] = (0, 0)
    parameters: dict[str, Any] = {}


class Unload(_Packet, tag="unload"):
    handle: int


class Release(_Packet, tag="release"):
    arena: int


class Stop(_Packet, tag="stop"):
    pass


class Ready(_Packet, tag="ready"):
    pid: int
    python: str


class Loaded(_Packet, tag="loaded"):
    handle: int
    platform: str
    inputs: list[list[Any]]
    outputs: list[list[Any]]
    max_batch_size: int | None
    description: str
    notes: list[str]


class Failed(_Packet, tag="failed"):
    handle: int
    code: str
    message: str


class Done(_Packet, tag="done"):
    sequence: int
    arena: int
    outputs: list[TensorRow]
    execute_us: int


class Error(_Packet, tag="error"):
    sequence: int
    code: str
    message: str


class Unloaded(_Packet, tag="unloaded"):
    handle: int


FromServer: TypeAlias = Load | Execute | Unload | Release | Stop
FromWorker: TypeAlias = Ready | Loaded | Failed | Done | Error | Unloaded
