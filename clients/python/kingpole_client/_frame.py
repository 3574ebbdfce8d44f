"""Where header and payloads lie in a frame, and how pieces of a stream become frames.

Knows no socket and no schema: bytes in, frames out. `FrameAssembler` hands out the memory that the next
bytes belong in, so that a socket can receive straight into place.

Source: protocol/spec/frame.md
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kingpole_client._flatbuffer import Buffer, MalformedFrame, Table
from kingpole_client.errors import ResourceExhausted

MAGIC = b"KINGPOL\x01"
MEDIA_TYPE = "application/x-kingpole"
PRELUDE_BYTES = 16
ALIGNMENT = 64
MAX_HEADER_BYTES = 256 * 1024
MAX_PAYLOADS = 1024
DEFAULT_MAX_FRAME_BYTES = 4 << 30
_PRELUDE = struct.Struct("<8sII")
_ZEROS = bytes(ALIGNMENT)


class Frame(NamedTuple):
    """A received frame: its verified-as-read header and views of its payloads."""

    header: Table
    payloads: list[memoryview]


def padding(nbytes: int) -> bytes:
    """Return the zeros between `nbytes` and the next multiple of 64."""
    return _ZEROS[: -nbytes % ALIGNMENT]


def join_frame(header: bytes, payloads: list[memoryview]) -> list[bytes | memoryview]:
    """Lay out a frame as a list of buffers to be sent one after another; payloads are not copied."""
    if len(header) > MAX_HEADER_BYTES:
        raise ResourceExhausted(
            f"the request's header has {len(header)} bytes, the most is {MAX_HEADER_BYTES}"
        )
    prelude = _PRELUDE.pack(MAGIC, len(header), len(payloads))
    parts: list[bytes | memoryview] = [prelude + header + padding(PRELUDE_BYTES + len(header))]
    for payload in payloads:
        if payload.nbytes:
            parts.append(payload)
            if payload.nbytes % ALIGNMENT:
                parts.append(padding(payload.nbytes))
    return parts


def read_prelude(prelude: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Return (header bytes, number of payloads)."""
    magic, header_bytes, payloads = _PRELUDE.unpack_from(prelude)
    if magic[:7] != MAGIC[:7]:
        raise MalformedFrame(f"the answer begins with {magic!r}, not with a frame's magic")
    if magic != MAGIC:
        raise MalformedFrame(f"the frame has version {magic[7]}, this client knows version {MAGIC[7]}")
    if header_bytes > MAX_HEADER_BYTES:
        raise MalformedFrame(f"the frame's header says {header_bytes} bytes, the most is {MAX_HEADER_BYTES}")
    if payloads > MAX_PAYLOADS:
        raise MalformedFrame(f"the frame says {payloads} payloads, the most is {MAX_PAYLOADS}")
    return header_bytes, payloads


def payload_ranges(header: Table, payloads: int, start: int, limit: int) -> tuple[list[tuple[int, int]], int]:
    """Return the (first, last) byte of each payload and the frame's end, counted like `start`."""
    lengths = header.uint64s(3)
    if len(lengths) != payloads:
        raise MalformedFrame(f"the frame says {payloads} payloads, its header {len(lengths)}")
    position = start
    ranges: list[tuple[int, int]] = []
    for length in lengths:
        ranges.append((position, position + length))
        position += length + -length % ALIGNMENT
        if position > limit:
            raise ResourceExhausted(f"the answer has at least {position} bytes, this client takes {limit}")
    return ranges, position


def split_frame(body: memoryview, limit: int = DEFAULT_MAX_FRAME_BYTES) -> Frame:
    """Read one whole frame.

    Raises:
        MalformedFrame: The bytes are not one frame.
        ResourceExhausted: It is longer than `limit`.
    """
    if len(body) < PRELUDE_BYTES:
        raise MalformedFrame(f"the frame is cut off after {len(body)} bytes")
    header_bytes, payloads = read_prelude(body)
    end = PRELUDE_BYTES + header_bytes
    if end > len(body):
        raise MalformedFrame(f"the frame is cut off within its header, after {len(body)} bytes")
    header = Buffer(bytes(body[PRELUDE_BYTES:end])).root()
    ranges, frame_bytes = payload_ranges(header, payloads, end + -end % ALIGNMENT, limit)
    if frame_bytes != len(body):
        raise MalformedFrame(f"the frame says {frame_bytes} bytes, got {len(body)}")
    return Frame(header, [body[first:last] for first, last in ranges])


def aligned_memory(nbytes: int) -> memoryview:
    """Return writable memory whose first byte is at a multiple of 64, not touched before it is written."""
    import numpy as np

    memory = np.empty(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory.data[start : start + nbytes]


class FrameAssembler:
    """Collects the pieces of a stream into frames.

    Ask `space()` for the memory the next bytes go to, fill any part of it, say how much in `filled`; each
    call gives a frame or None. Nothing is allocated before the length that asks for it has been checked.
    """

    def __init__(self, limit: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._memory = memoryview(bytearray(PRELUDE_BYTES))
        self._have = 0
        self._payloads = 0
        self._header_bytes = 0
        self._header: Table | None = None
        self._ranges: list[tuple[int, int]] = []

    @property
    def idle(self) -> bool:
        """True between two frames."""
        return self._have == 0 and len(self._memory) == PRELUDE_BYTES and self._header_bytes == 0

    def space(self) -> memoryview:
        """Return the memory that the next bytes of the stream belong in; never empty."""
        return self._memory[self._have :]

    def filled(self, nbytes: int) -> Frame | None:
        """Account for `nbytes` more bytes in `space()`; returns the frame that they complete."""
        self._have += nbytes
        while self._have == len(self._memory):
            if self._header_bytes == 0:
                self._header_bytes, self._payloads = read_prelude(self._memory)
                if self._header_bytes == 0:
                    raise MalformedFrame("the frame has no header")
                end = PRELUDE_BYTES + self._header_bytes
                self._next(end + -end % ALIGNMENT - PRELUDE_BYTES)
            elif self._header is None:
                self._header = Buffer(bytes(self._memory[: self._header_bytes])).root()
                self._ranges, payload_bytes = payload_ranges(self._header, self._payloads, 0, self._limit)
                if payload_bytes == 0:
                    return self._finish(memoryview(b""))
                self._memory, self._have = aligned_memory(payload_bytes), 0
            else:
                return self._finish(self._memory.toreadonly())
        return None

    def feed(self, data: memoryview) -> list[Frame]:
        """Copy a piece of the stream in; returns the frames it completes, oldest first."""
        frames: list[Frame] = []
        while len(data):
            space = self.space()
            nbytes = min(len(space), len(data))
            space[:nbytes] = data[:nbytes]
            data = data[nbytes:]
            frame = self.filled(nbytes)
            if frame is not None:
                frames.append(frame)
        return frames

    def _next(self, nbytes: int) -> None:
        self._memory, self._have = memoryview(bytearray(nbytes)), 0

    def _finish(self, body: memoryview) -> Frame:
        header, ranges = self._header, self._ranges
        assert header is not None
        self._begin()
        return Frame(header, [body[first:last] for first, last in ranges])
