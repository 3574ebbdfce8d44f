"""One HTTP/2 connection of a load generator, as bytes in and bytes out (no socket, no clock).

Only what a client of one repeated unary gRPC request needs. Answers are told apart by
stream; flow control is obeyed in both directions.

Source: RFC 9113 (frames, flow control), RFC 7541 (header blocks), gRPC over HTTP/2.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _PADDED, _ACK = 0x1, 0x4, 0x8, 0x1
_HEADER_TABLE_SIZE, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 3, 4, 5
_DEFAULT_WINDOW = 65_535
_OUR_WINDOW = (1 << 31) - 1
_REPLENISH_BYTES = 1 << 30
_MAX_CACHED_BLOCKS = 1_024

UNANSWERED, CONNECTION_LOST, RESET = -1, -2, -3


@dataclass
class _Stream:
    request: int
    unsent: memoryview
    window: int
    body_bytes: int = 0
    status: int = UNANSWERED


@dataclass(frozen=True)
class Answer:
    """The end of one request: its gRPC status (negative: it never had one) and its body's size."""

    request: int
    status: int
    body_bytes: int


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Http2Connection:
    """A client connection that sends the same request again and again.

    Every submitted request comes out of `receive` or `lose` exactly once.
    """

    def __init__(self, authority: str, path: str, body: bytes) -> None:
        self._body = body
        # Literals without indexing: the block never depends on what was sent before.
        self._header_block = (
            b"\x83\x86"
            + _literal(b":path", path.encode())
            + _literal(b":authority", authority.encode())
            + _literal(b"content-type", b"application/grpc")
            + _literal(b"te", b"trailers")
        )
        # A header table of size 0 makes every header block of the server readable by itself,
        # so equal blocks are decoded once.
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _OUR_WINDOW)
        self._out = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _OUR_WINDOW - _DEFAULT_WINDOW))
        self._in = bytearray()
        self._decoder = hpack.Decoder()
        self._statuses: dict[bytes, int | None] = {}
        self._streams: dict[int, _Stream] = {}
        self._waiting: deque[int] = deque()
        self._blocked: deque[int] = deque()
        self._next_stream = 1
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._max_frame_bytes = 16_384
        self._max_streams = 1 << 31
        self._received_bytes = 0
        self.settled = False
        """True once the server has acknowledged our settings: from then on answers can be read."""

    def submit(self, request: int) -> None:
        """Queue one request under a number of the caller's choice."""
        self._waiting.append(request)

    def outgoing(self) -> tuple[bytearray, list[int]]:
        """Move what may be sent into the outgoing buffer.

        Returns:
            The buffer, from whose front the caller removes what it wrote, and the requests
            whose last byte entered it in this call.
        """
        complete: list[int] = []
        while self._blocked and self._continue(self._blocked[0], complete):
            self._blocked.popleft()
        while self._waiting and not self._blocked and len(self._streams) < self._max_streams:
            stream = self._next_stream
            self._next_stream += 2
            self._streams[stream] = _Stream(
                self._waiting.popleft(), memoryview(self._body), self._stream_window
            )
            self._out += _frame(_HEADERS, _END_HEADERS, stream, self._header_block)
            if not self._continue(stream, complete):
                self._blocked.append(stream)
        return self._out, complete

    def _continue(self, number: int, complete: list[int]) -> bool:
        """Send more of a body; true when there is nothing left to send."""
        stream = self._streams.get(number)
        if stream is None:
            return True  # ended by the server before we had sent it all
        while stream.unsent:
            size = min(len(stream.unsent), self._window, stream.window, self._max_frame_bytes)
            if size <= 0:
                return False
            last = size == len(stream.unsent)
            self._out += _frame(_DATA, _END_STREAM if last else 0, number, bytes(stream.unsent[:size]))
            stream.unsent = stream.unsent[size:]
            self._window -= size
            stream.window -= size
        complete.append(stream.request)
        return True

    def receive(self, data: bytes) -> list[Answer]:
        """Take bytes from the server and return the requests they ended."""
        self._in += data
        answers: list[Answer] = []
        offset, available = 0, len(self._in)
        while available - offset >= 9:
            length_and_kind, flags, number = struct.unpack_from(">IBI", self._in, offset)
            end = offset + 9 + (length_and_kind >> 8)
            if end > available:
                break
            self._take(length_and_kind & 0xFF, flags, number & 0x7FFFFFFF, offset + 9, end, answers)
            offset = end
        del self._in[:offset]
        if self._received_bytes >= _REPLENISH_BYTES:
            self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received_bytes))
            self._received_bytes = 0
        return answers

    def lose(self) -> list[Answer]:
        """End everything that has no answer, because the connection has ended."""
        answers = [
            Answer(stream.request, CONNECTION_LOST, stream.body_bytes) for stream in self._streams.values()
        ]
        answers += [Answer(request, CONNECTION_LOST, 0) for request in self._waiting]
        self._streams.clear()
        self._waiting.clear()
        self._blocked.clear()
        return answers

    def _take(self, kind: int, flags: int, number: int, start: int, end: int, answers: list[Answer]) -> None:
        if kind == _DATA:
            self._received_bytes += end - start
            if number in self._streams:
                padding = self._in[start] + 1 if flags & _PADDED else 0
                self._streams[number].body_bytes += end - start - padding
        elif kind == _HEADERS:
            status = self._status(bytes(self._in[start:end]))
            if status is not None and number in self._streams:
                self._streams[number].status = status
        elif kind == _RST_STREAM and number in self._streams:
            if self._streams[number].status == UNANSWERED:
                self._streams[number].status = RESET
            flags = _END_STREAM
        elif kind == _SETTINGS:
            self._settings(flags, start, end)
            return
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, bytes(self._in[start:end]))
            return
        elif kind == _WINDOW_UPDATE:
            self._grow(number, struct.unpack_from(">I", self._in, start)[0])
            return
        if kind in (_DATA, _HEADERS, _RST_STREAM) and flags & _END_STREAM:
            stream = self._streams.pop(number, None)
            if stream is not None:
                answers.append(Answer(stream.request, stream.status, stream.body_bytes))

    def _status(self, block: bytes) -> int | None:
        """Read grpc-status from a header block that is neither padded nor continued; None without one."""
        if block not in self._statuses:
            if len(self._statuses) >= _MAX_CACHED_BLOCKS:
                self._statuses.clear()
            headers = dict(self._decoder.decode(block, raw=True))
            status = headers.get(b"grpc-status")
            self._statuses[block] = None if status is None else int(status)
        return self._statuses[block]

    def _settings(self, flags: int, start: int, end: int) -> None:
        if flags & _ACK:
            self.settled = True
            return
        for identifier, value in struct.iter_unpack(">HI", self._in[start:end]):
            if identifier == _INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif identifier == _MAX_FRAME_SIZE:
                self._max_frame_bytes = value
            elif identifier == _MAX_CONCURRENT_STREAMS:
                self._max_streams = value
        self._out += _frame(_SETTINGS, _ACK, 0, b"")

    def _grow(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
        elif number in self._streams:
            self._streams[number].window += increment
