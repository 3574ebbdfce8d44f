"""Servers that answer each request with another lie, over every transport. Knows no client.

What would go on for ever is bounded, so that a client that listens to it is seen to fail and not to hang.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from kingpole_client._frame import Frame, FrameAssembler, split_frame
from kingpole_client._generated import kingpole_generated as fb
from kingpole_client.errors import KingpoleError

from protocol.conformance.lies import CUTS, LIES, Lie, credit_frame, framed, response_frame, response_header

_ENDLESS_S = 2.0
_BLOCK = bytes(1 << 16)
_FRAME_TYPE = "application/x-kingpole"

Act = Callable[[socket.socket, int], None]


class Behavior(NamedTuple):
    """What answers one request on a connection; an exchange to answer comes with it."""

    act: Act
    closes: bool = True
    """Whether the connection is closed after it. If not, the client has to see the lie by itself."""


def _is_cancel(frame: Frame) -> bool:
    # Its credit is given back, in honesty: a client without any would not ask again.
    return frame.header.uint8(0) == fb.Message.Cancel


def _for_a_while(connection: socket.socket, piece: bytes) -> None:
    deadline = time.monotonic() + _ENDLESS_S
    while time.monotonic() < deadline:
        connection.sendall(piece)


def _sent(make: Callable[[int], bytes], *, closes: bool = True) -> Behavior:
    return Behavior(lambda connection, exchange: connection.sendall(make(exchange)), closes)


def _said(data: bytes) -> Behavior:
    return _sent(lambda _exchange: data)


def _repeated(piece: bytes, begin: bytes = b"") -> Behavior:
    def act(connection: socket.socket, _exchange: int) -> None:
        connection.sendall(begin)
        deadline = time.monotonic() + _ENDLESS_S
        while time.monotonic() < deadline:
            connection.sendall(piece)

    return Behavior(act)


def _stay_silent(connection: socket.socket, _exchange: int) -> None:
    """Say nothing, until the client has had enough and leaves or takes its request back."""
    connection.settimeout(9)
    with contextlib.suppress(TimeoutError):
        connection.recv(1 << 16)


def _http(body: bytes, status: str = "200 OK", length: object = None, more: str = "") -> bytes:
    said = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_FRAME_TYPE}\r\nContent-Length: {said}\r\n{more}\r\n"
    return head.encode() + body


def _posted(lie: Lie, *, closes: bool = True) -> Behavior:
    return _sent(lambda exchange: _http(lie.make(exchange)), closes=closes)


_CHUNKED = f"HTTP/1.1 200 OK\r\nContent-Type: {_FRAME_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()

ON_SOCKETS = (
    Behavior(lambda _connection, _exchange: None),
    Behavior(_stay_silent),
    _repeated(credit_frame((1 << 32) - 1)),
    _repeated(response_frame(999)),
    _repeated(_BLOCK),
    _repeated(_BLOCK, framed(response_header(1, lengths=[1 << 40]), count=1)),
    *(_sent(lie.make) for lie in CUTS),
    *(_sent(lie.make, closes=False) for lie in LIES),
)

ON_HTTP = (
    Behavior(lambda _connection, _exchange: None),
    Behavior(_stay_silent),
    _sent(lambda exchange: _http(response_frame(exchange) + bytes(64))),
    _sent(lambda exchange: _http(response_frame(exchange)[:100], length=500)),
    _said(_http(b"", length=-5)),
    _said(_http(b"", length="many")),
    _said(_http(b"", length="9" * 40)),
    _said(_http(b"{}", "500 Oh")),
    _said(_http(b"<h1>good morning</h1>")),
    _said(_CHUNKED + b"zz\r\n"),
    _said(_CHUNKED + b"ffffffffffffffff\r\nabc"),
    _said(b"\x16\x03\x01\x02\x00" + _BLOCK[:100]),
    _said(b"HTTP/1.1 banana\r\n\r\n"),
    _repeated(_BLOCK, _http(b"", length=1 << 40)),
    _repeated(b"10000\r\n" + _BLOCK + b"\r\n", _CHUNKED),
    _repeated(b"X-More: and more\r\n" * 100, b"HTTP/1.1 200 OK\r\n"),
    _repeated(b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(_posted(lie) for lie in CUTS),
    *(_posted(lie, closes=False) for lie in LIES if not lie.on_streams_only),
)


class Turns:
    """Whose turn it is: each request gets the next of the bad answers."""

    def __init__(self, count: int) -> None:
        self._lock, self._next = threading.Lock(), itertools.cycle(range(count))

    def take(self) -> int:
        """Return the index of the next one."""
        with self._lock:
            return next(self._next)


class HostileSockets:
    """Answers frames on bare connections, or requests over HTTP, with lies."""

    def __init__(self, path: Path | None, *, speaks_http: bool) -> None:
        self._behaviors = ON_HTTP if speaks_http else ON_SOCKETS
        self._turns = Turns(len(self._behaviors))
        self._requests = _requests_over_http if speaks_http else _requests_in_frames
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            authority = f"127.0.0.1:{self._listener.getsockname()[1]}"
            self.url = f"{'http' if speaks_http else 'frame'}://{authority}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.url = f"unix:{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A client may leave whenever it likes.
        with contextlib.suppress(OSError, KingpoleError, ValueError), connection:
            connection.settimeout(60)
            for exchange in self._requests(connection):
                behavior = self._behaviors[self._turns.take()]
                behavior.act(connection, exchange)
                if not behavior.closes:
                    continue
                connection.shutdown(socket.SHUT_WR)
                # A reset would throw away what was sent; the client hears the end and closes.
                while connection.recv(1 << 16):
                    pass
                return


def _requests_in_frames(connection: socket.socket) -> Iterator[int]:
    assembler = FrameAssembler()
    while piece := connection.recv(1 << 16):
        for frame in assembler.feed(memoryview(piece)):
            exchange = frame.header.uint64(2)
            if _is_cancel(frame):
                connection.sendall(credit_frame(1, exchange))
            else:
                yield exchange


def _requests_over_http(connection: socket.socket) -> Iterator[int]:
    with connection.makefile("rb") as file:
        while file.readline().strip():
            length, is_chunked = 0, False
            while line := file.readline().strip().lower():
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
                is_chunked = is_chunked or (name == b"transfer-encoding" and b"chunked" in value)
            if is_chunked:
                while size := int(file.readline().partition(b";")[0], 16):
                    file.read(size + 2)
                file.readline()
            file.read(length)
            yield 1


class HostileGrpc:
    """Answers `kingpole.v1.Inference` with lies, in gRPC that is as it should be."""

    def __init__(self) -> None:
        self._answers = [lie.make for lie in (*LIES, *CUTS)]
        self._turns = Turns(len(self._answers) + 4)
        self._pool = ThreadPoolExecutor(32)
        self._server = grpc.server(self._pool, options=[("grpc.max_send_message_length", -1)])
        handlers = {
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),
            "Infer": grpc.unary_unary_rpc_method_handler(self._infer),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("kingpole.v1.Inference", handlers),)
        )
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        """End every call."""
        self._server.stop(0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for message in messages:
            frame = split_frame(memoryview(message))
            if _is_cancel(frame):
                yield credit_frame(1, frame.header.uint64(2))
                continue
            turn = self._turns.take() - len(self._answers)
            if turn < 0:
                yield self._answers[turn](frame.header.uint64(2))
            elif turn == 0:
                return
            elif turn == 1:
                context.abort(grpc.StatusCode.DATA_LOSS, "x" * 4000)
            else:
                yield from _endless(credit_frame(1) if turn == 2 else response_frame(999))
                return

    def _infer(self, message: bytes, context: Any) -> bytes:
        exchange = split_frame(memoryview(message)).header.uint64(2)
        turn = self._turns.take() - len(self._answers)
        if turn >= 0:
            context.abort(grpc.StatusCode.DATA_LOSS, "x" * 4000)
        return self._answers[turn](exchange)


def _endless(message: bytes) -> Iterator[bytes]:
    deadline = time.monotonic() + _ENDLESS_S
    while time.monotonic() < deadline:
        yield message


def hostile_server(transport: str, directory: Path) -> HostileSockets | HostileGrpc:
    """Start the hostile server of one of the four transports."""
    if transport == "grpc":
        return HostileGrpc()
    path = directory / f"hostile-{time.monotonic_ns()}" if transport == "unix" else None
    return HostileSockets(path, speaks_http=transport == "http")
