"""A frame server made of the client's own codec: every model is identity. For tests without the real server.

It speaks frames and just enough HTTP/1.1 on one port, as the server does. Model `error` answers with the
code in parameter `number`; model `silent` never answers; model `late` answers after the next request.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import flatbuffers
from kingpole_client import _messages
from kingpole_client._flatbuffer import Table
from kingpole_client._frame import Frame, FrameAssembler, split_frame
from kingpole_client._generated import kingpole_generated as fb


def _finish(builder, kind, message, exchange, payloads=()):
    return b"".join(_messages._finish(builder, kind, message, exchange, list(payloads)))


def encode_error(number: int, message: str, exchange: int, retry_after_ms: int = 0) -> bytes:
    builder = flatbuffers.Builder(128)
    text = builder.CreateString(message)
    fb.ErrorStart(builder)
    fb.ErrorAddCode(builder, number)
    fb.ErrorAddMessage(builder, text)
    fb.ErrorAddRetryAfterMs(builder, retry_after_ms)
    return _finish(builder, fb.Message.Error, fb.ErrorEnd(builder), exchange)


def encode_response(request: Table, payloads: list[memoryview], exchange: int) -> bytes:
    builder = flatbuffers.Builder(512)
    tensors = []
    for tensor in request.tables(5):
        name = builder.CreateString(tensor.string(0) or "")
        shape = _messages._numbers(builder, tensor.int64s(2), builder.PrependInt64)
        fb.TensorStart(builder)
        fb.TensorAddName(builder, name)
        fb.TensorAddDatatype(builder, tensor.uint8(1))
        fb.TensorAddShape(builder, shape)
        fb.TensorAddPayload(builder, tensor.uint32(4))
        fb.TensorAddOffset(builder, tensor.uint64(5))
        fb.TensorAddNbytes(builder, tensor.uint64(6))
        tensors.append(fb.TensorEnd(builder))
    outputs = _messages._offsets(builder, tensors)
    model, version = builder.CreateString(request.string(0) or "default"), builder.CreateString("1")
    id_ = _messages._text(builder, request.string(2))
    pairs = _messages._parameters(request.tables(7)).items()
    parameters = _messages._offsets(builder, [_messages._parameter(builder, *pair) for pair in pairs])
    fb.ResponseStart(builder)
    fb.ResponseAddModel(builder, model)
    fb.ResponseAddVersion(builder, version)
    for offset, add in (
        (id_, fb.ResponseAddId),
        (outputs, fb.ResponseAddOutputs),
        (parameters, fb.ResponseAddParameters),
    ):
        if offset:
            add(builder, offset)
    fb.ResponseAddBatchRows(builder, 1)
    return _finish(builder, fb.Message.Response, fb.ResponseEnd(builder), exchange, payloads)


def encode_credit(requests: int) -> bytes:
    builder = flatbuffers.Builder(64)
    fb.CreditStart(builder)
    fb.CreditAddRequests(builder, requests)
    return _finish(builder, fb.Message.Credit, fb.CreditEnd(builder), 0)


def encode_ready(ready: bool, exchange: int) -> bytes:
    builder = flatbuffers.Builder(64)
    fb.ReadyStart(builder)
    fb.ReadyAddReady(builder, ready)
    return _finish(builder, fb.Message.Ready, fb.ReadyEnd(builder), exchange)


def encode_server_info(exchange: int) -> bytes:
    builder = flatbuffers.Builder(64)
    name, version = builder.CreateString("kingpole"), builder.CreateString("0.1.0")
    fb.ServerInfoStart(builder)
    fb.ServerInfoAddName(builder, name)
    fb.ServerInfoAddVersion(builder, version)
    return _finish(builder, fb.Message.ServerInfo, fb.ServerInfoEnd(builder), exchange)


class FrameAnswers:
    """What the server answers, and what it was asked."""

    url = ""
    token: str | None = None
    # Requests a stream may have open beyond the first.
    credit = 1023

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.cancels: list[int] = []
        self.cancelled = threading.Event()
        self.asked = threading.Event()

    def answer(self, frame: Frame) -> bytes | None:
        exchange, kind, message = frame.header.uint64(2), frame.header.uint8(0), frame.header.table(1)
        assert message is not None
        answers: dict[int, Callable[[], bytes]] = {
            fb.Message.ReadyRequest: lambda: encode_ready(message.string(0) != "loading", exchange),
            fb.Message.ServerInfoRequest: lambda: encode_server_info(exchange),
        }
        if kind == fb.Message.Cancel:
            self.cancels.append(exchange)
            self.cancelled.set()
            # Only what is never answered is cancelled here.
            return encode_credit(1)
        if kind in answers:
            return answers[kind]()
        model = message.string(0) or ""
        self.requests.append(model)
        self.asked.set()
        if model == "silent":
            return None
        if model == "error":
            number = _messages._parameters(message.tables(7))["number"]
            return encode_error(int(number), "said the server", exchange, retry_after_ms=1500)
        return encode_response(message, frame.payloads, exchange)


class FrameServer(FrameAnswers):
    """Serves one listening socket until closed; a thread per connection."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.authority = f"127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.authority = str(path)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> FrameServer:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(10)

    def drop(self) -> None:
        """Break every connection."""
        connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            first = connection.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL)
            if first.startswith(b"KINGPOL"):
                self._serve_frames(connection)
            elif first:
                self._serve_http(connection)

    def _serve_frames(self, connection: socket.socket) -> None:
        assembler = FrameAssembler()
        late: list[bytes] = []
        if self.credit:
            connection.sendall(encode_credit(self.credit))
        while piece := connection.recv(1 << 16):
            for frame in assembler.feed(memoryview(piece)):
                answer = self.answer(frame)
                if answer is None:
                    continue
                if self.requests and self.requests[-1] == "late":
                    late.append(answer)
                    self.requests.append("held")
                    continue
                connection.sendall(answer)
                while late:
                    connection.sendall(late.pop())

    def _serve_http(self, connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while line := file.readline():
            method, path, _ = line.decode().split(" ")
            nbytes = 0
            while header := file.readline().strip():
                name, _, value = header.partition(b":")
                nbytes = int(value) if name.lower() == b"content-length" else nbytes
            body = file.read(nbytes)
            status, media_type, answer = self._route(method, path, body)
            if answer is None:
                continue
            head = (
                f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {len(answer)}\r\n\r\n"
            )
            connection.sendall(head.encode() + answer)

    def _route(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes | None]:
        rest: dict[str, tuple[int, bytes]] = {
            "GET /v2/health/live": (200, b"{}"),
            "GET /v2/health/ready": (503, b'{"error":"loading"}'),
            "GET /v2": (200, b'{"name":"kingpole","version":"0.1.0","extensions":["binary_tensor_data"]}'),
            "GET /v2/models/a%2Fb/ready": (
                404,
                b'{"error":"Request for unknown model: \'a/b\' is not found"}',
            ),
            "GET /v2/models/m": (
                200,
                b'{"name":"m","versions":["1"],"platform":"identity",'
                b'"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"outputs":[]}',
            ),
            "POST /v2/repository/index": (200, b'[{"name":"m","version":"1","state":"READY","reason":""}]'),
        }
        if (method, path) == ("POST", "/v1/infer"):
            return 200, "application/x-kingpole", self.answer(split_frame(memoryview(body)))
        status, answer = rest.get(f"{method} {path}", (404, b'{"error":"no such path"}'))
        return status, "application/json", answer
