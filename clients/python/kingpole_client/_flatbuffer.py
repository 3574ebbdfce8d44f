"""Reading a flatbuffer that came from somebody else.

The flatbuffers runtime trusts its bytes: a negative vtable offset reads from the end of the buffer, and
`struct.error`, `TypeError` and plain wrong values come out. So nothing received goes near it: the classes
here check each offset against the buffer as they follow it, which makes reading and verifying one pass.
Knows the flatbuffer format, not our schema. Depth is bounded because each reader names its own children;
the number of tables by a budget, against graphs that share children to look bigger than they are.

Source: flatbuffers.dev/internals; limits after the Rust and C++ verifiers.
"""

from __future__ import annotations

import struct

from kingpole_client.errors import Internal

MAX_TABLES = 100_000
MAX_VECTOR_LENGTH = 1_000_000

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")


class MalformedFrame(Internal):
    """The server sent bytes that are not a frame."""


class Buffer:
    """Received bytes, and how many more tables may be read from them."""

    __slots__ = ("data", "size", "tables_left")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.tables_left = MAX_TABLES

    def root(self) -> Table:
        """Return the root table."""
        if self.size < 8:
            raise MalformedFrame(f"the header has {self.size} bytes, a flatbuffer needs at least 8")
        return Table(self, self.follow(0))

    def follow(self, position: int) -> int:
        """Return where the unsigned offset at `position` leads; `position` is known to be inside."""
        target: int = position + _U32.unpack_from(self.data, position)[0]
        if target <= position or target + 4 > self.size or target & 3:
            raise MalformedFrame(f"the header's offset at {position} leads to {target} of {self.size} bytes")
        return target

    def string(self, position: int) -> str:
        """Return the string that the offset at `position` leads to."""
        start = self.follow(position) + 4
        length: int = _U32.unpack_from(self.data, start - 4)[0]
        if start + length + 1 > self.size or self.data[start + length]:
            raise MalformedFrame(f"a string of {length} bytes at {start} does not end inside the header")
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise MalformedFrame(f"the string at {start} is not UTF-8") from None

    def vector(self, position: int, element_bytes: int) -> tuple[int, int]:
        """Return (start, length) of the vector that the offset at `position` leads to."""
        start = self.follow(position) + 4
        length: int = _U32.unpack_from(self.data, start - 4)[0]
        if length > MAX_VECTOR_LENGTH or start + length * element_bytes > self.size:
            raise MalformedFrame(f"a vector of {length} elements at {start} is longer than the header")
        if length and start % element_bytes:
            raise MalformedFrame(f"the vector at {start} is not aligned to {element_bytes} bytes")
        return start, length


class Table:
    """One table; every field is checked when it is read. `slot` counts fields from 0."""

    __slots__ = ("_buffer", "_end", "_position", "_vtable", "_vtable_bytes")

    def __init__(self, buffer: Buffer, position: int) -> None:
        buffer.tables_left -= 1
        if buffer.tables_left < 0:
            raise MalformedFrame(f"the header has more than {MAX_TABLES} tables")
        vtable: int = position - _I32.unpack_from(buffer.data, position)[0]
        if vtable < 0 or vtable & 1 or vtable + 4 > buffer.size:
            raise MalformedFrame(f"the vtable of the table at {position} lies outside of the header")
        vtable_bytes, table_bytes = (
            _U16.unpack_from(buffer.data, vtable)[0],
            _U16.unpack_from(buffer.data, vtable + 2)[0],
        )
        if vtable_bytes < 4 or vtable_bytes & 1 or vtable + vtable_bytes > buffer.size:
            raise MalformedFrame(f"the vtable at {vtable} says {vtable_bytes} bytes")
        if table_bytes < 4 or position + table_bytes > buffer.size:
            raise MalformedFrame(f"the table at {position} says {table_bytes} bytes")
        self._buffer = buffer
        self._position = position
        self._vtable = vtable
        self._vtable_bytes = vtable_bytes
        self._end = position + table_bytes

    def _field(self, slot: int, size: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_bytes:
            return None
        offset: int = _U16.unpack_from(self._buffer.data, self._vtable + entry)[0]
        if offset == 0:
            return None
        position = self._position + offset
        if offset < 4 or position + size > self._end or position % size:
            raise MalformedFrame(f"field {slot} of the table at {self._position} lies outside of it")
        return position

    def uint8(self, slot: int) -> int:
        """Return a byte, 0 if absent."""
        position = self._field(slot, 1)
        return 0 if position is None else self._buffer.data[position]

    def uint32(self, slot: int) -> int:
        """Return an unsigned 32-bit integer, 0 if absent."""
        position = self._field(slot, 4)
        return 0 if position is None else int(_U32.unpack_from(self._buffer.data, position)[0])

    def uint64(self, slot: int) -> int:
        """Return an unsigned 64-bit integer, 0 if absent."""
        position = self._field(slot, 8)
        return 0 if position is None else int(_U64.unpack_from(self._buffer.data, position)[0])

    def int64(self, slot: int) -> int:
        """Return a signed 64-bit integer, 0 if absent."""
        position = self._field(slot, 8)
        return 0 if position is None else int(_I64.unpack_from(self._buffer.data, position)[0])

    def float64(self, slot: int) -> float:
        """Return a double, 0.0 if absent."""
        position = self._field(slot, 8)
        return 0.0 if position is None else float(_F64.unpack_from(self._buffer.data, position)[0])

    def string(self, slot: int) -> str | None:
        """Return a string, None if absent."""
        position = self._field(slot, 4)
        return None if position is None else self._buffer.string(position)

    def table(self, slot: int) -> Table | None:
        """Return a child table, None if absent."""
        position = self._field(slot, 4)
        return None if position is None else Table(self._buffer, self._buffer.follow(position))

    def int64s(self, slot: int) -> tuple[int, ...]:
        """Return a vector of signed 64-bit integers, empty if absent."""
        return self._numbers(slot, "q")

    def uint64s(self, slot: int) -> tuple[int, ...]:
        """Return a vector of unsigned 64-bit integers, empty if absent."""
        return self._numbers(slot, "Q")

    def _numbers(self, slot: int, letter: str) -> tuple[int, ...]:
        position = self._field(slot, 4)
        if position is None:
            return ()
        start, length = self._buffer.vector(position, 8)
        return struct.unpack_from(f"<{length}{letter}", self._buffer.data, start)

    def tables(self, slot: int) -> list[Table]:
        """Return a vector of tables, empty if absent."""
        position = self._field(slot, 4)
        if position is None:
            return []
        buffer = self._buffer
        start, length = buffer.vector(position, 4)
        return [Table(buffer, buffer.follow(start + 4 * index)) for index in range(length)]

    def strings(self, slot: int) -> list[str]:
        """Return a vector of strings, empty if absent."""
        position = self._field(slot, 4)
        if position is None:
            return []
        buffer = self._buffer
        start, length = buffer.vector(position, 4)
        buffer.tables_left -= length
        if buffer.tables_left < 0:
            raise MalformedFrame(f"the header has more than {MAX_TABLES} tables and strings")
        return [buffer.string(start + 4 * index) for index in range(length)]
