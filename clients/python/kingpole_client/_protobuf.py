"""The one protobuf answer that has no frame of its own: the repository's index.

Read by hand, because generated classes of `inference.*` clash in one process with those of other clients.
"""

from __future__ import annotations

from kingpole_client._values import ModelState
from kingpole_client.errors import Internal


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise Internal("the server's answer is not protobuf: a number does not end")


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Return (field number, content) of the length-delimited fields; others are skipped."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 2:
            length, position = _varint(data, position)
            found.append((key >> 3, data[position : position + length]))
            position += length
        elif kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise Internal(f"the server's answer is not protobuf: wire type {kind}")
        if position > len(data):
            raise Internal("the server's answer is not protobuf: it is cut off")
    return found


def read_models(data: bytes) -> list[ModelState]:
    """Read an `inference.RepositoryIndexResponse`.

    Raises:
        Internal: The bytes are none.

    Source: protocol/schema/open_inference.proto: models = 1; name, version, state, reason = 1 to 4.
    """
    models: list[ModelState] = []
    for number, row in _fields(data):
        if number == 1:
            text = {field: content.decode(errors="replace") for field, content in _fields(row)}
            models.append(ModelState(text.get(1, ""), text.get(2) or None, text.get(3, ""), text.get(4, "")))
    return models
