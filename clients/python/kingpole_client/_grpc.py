"""Frames over gRPC: `kingpole.v1.Inference/Stream` with the identity codec. Imported on first use only."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from kingpole_client import _protobuf
from kingpole_client._address import Address
from kingpole_client._clock import now_us, seconds_left
from kingpole_client._exchanges import Exchanges
from kingpole_client._frame import Frame, split_frame
from kingpole_client._messages import Buffers, encode_cancel
from kingpole_client._parts import ONLY_EXCHANGE
from kingpole_client._stream import Begun
from kingpole_client._values import ModelState
from kingpole_client.errors import (
    Cancelled,
    DeadlineExceeded,
    KingpoleError,
    Unavailable,
    Unimplemented,
    error_of_number,
)

STREAM = "/kingpole.v1.Inference/Stream"
INDEX = "/inference.GRPCInferenceService/RepositoryIndex"


def channel_options(limit: int) -> list[tuple[str, Any]]:
    """Return the channel's options: gRPC's own 4 MiB limit gives way to ours."""
    most = min(limit, (1 << 31) - 1)
    return [("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", -1)]


def error_of_rpc(error: Any, address: Address) -> KingpoleError:
    """Make ours of gRPC's error."""
    number, text = error.code().value[0], error.details() or "no reason given"
    if number == Unimplemented.number:
        text += f"; {address} takes no frames over gRPC: over http this client also speaks Open Inference"
    return error_of_number(number, f"{address}: {text}" if number == Unavailable.number else text)


def metadata_of(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the call's metadata."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


class GrpcStream:
    """One bidirectional call, the queue that feeds it and the thread that reads it."""

    def __init__(self, channel: Any, address: Address, token: str | None, limit: int) -> None:
        self._address, self._limit = address, limit
        self._exchanges = Exchanges()
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = channel.stream_stream(STREAM, request_serializer=None, response_deserializer=None)
        self._call = method(iter(self._requests.get, None), metadata=metadata_of(token))
        threading.Thread(
            target=self._read, args=(self._call,), name=f"kingpole {address}", daemon=True
        ).start()

    @property
    def failed(self) -> bool:
        """True once nothing more can be asked here."""
        return self._exchanges.failed

    def start(
        self, make: Callable[[int], Buffers], deadline_us: int | None, *, is_request: bool = False
    ) -> Begun:
        """Send a request; returns its future and how to give it up."""
        exchange, future = self._exchanges.begin(deadline_us, is_request=is_request)
        try:
            message = b"".join(make(exchange))
            if deadline_us is not None and now_us() >= deadline_us:
                raise DeadlineExceeded("the timeout passed before the request was sent")
        except BaseException:
            self._exchanges.withdraw(exchange)
            raise
        self._requests.put(message)
        return future, lambda: self._cancel(exchange)

    def _cancel(self, exchange: int) -> None:
        if self._exchanges.give_up(exchange):
            self._requests.put(b"".join(encode_cancel(exchange)))

    def _read(self, call: Iterator[bytes]) -> None:
        error: KingpoleError
        try:
            for message in call:
                unwanted = self._exchanges.answer(split_frame(memoryview(message), self._limit))
                if unwanted is not None:
                    self._requests.put(b"".join(encode_cancel(unwanted)))
            error = Unavailable(f"{self._address} ended the stream")
        except KingpoleError as refusal:
            error = refusal
        except grpc.RpcError as broken:
            error = error_of_rpc(broken, self._address)
        self.fail(error)

    def fail(self, error: KingpoleError) -> None:
        """End the stream and everything that waits on it."""
        self._exchanges.fail(error)
        self._requests.put(None)
        self._call.cancel()


class GrpcSource:
    """The answer to one request, on a call of its own."""

    def __init__(self, call: Any, address: Address, limit: int) -> None:
        self._call, self._address, self._limit = call, address, limit

    def next(self) -> Frame:
        """Wait for the next frame."""
        try:
            message = next(self._call)
        except StopIteration:
            raise Unavailable(f"{self._address} ended the stream before the last response") from None
        except grpc.RpcError as error:
            raise error_of_rpc(error, self._address) from None
        return split_frame(memoryview(message), self._limit)

    def close(self, *, ended: bool) -> None:
        """End the call; before its answer has ended this cancels the request."""
        if ended:
            # Lets the call end well instead of being reset.
            with contextlib.suppress(StopIteration, grpc.RpcError):
                next(self._call)
        else:
            self._call.cancel()


class GrpcTransport:
    """A channel and its stream, opened when first needed and again after it has ended."""

    def __init__(self, address: Address, token: str | None, certificates: bytes | None, limit: int) -> None:
        self._address, self._token, self._limit = address, token, limit
        options = channel_options(limit)
        if address.secure:
            credentials = grpc.ssl_channel_credentials(certificates)
            self._channel = grpc.secure_channel(address.authority, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address.authority, options)
        self._lock = threading.Lock()
        self._stream: GrpcStream | None = None
        self._closed = False

    def start(
        self, make: Callable[[int], Buffers], deadline_us: int | None, *, is_request: bool = False
    ) -> Begun:
        """Send a request on the stream."""
        with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
            if self._stream is None or self._stream.failed:
                self._stream = GrpcStream(self._channel, self._address, self._token, self._limit)
            stream = self._stream
        return stream.start(make, deadline_us, is_request=is_request)

    def open(self, make: Callable[[int], Buffers], deadline_us: int | None) -> GrpcSource:
        """Send a request on a call of its own, whose answer may be any number of responses."""
        with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
        message = b"".join(make(ONLY_EXCHANGE))
        method = self._channel.stream_stream(STREAM, request_serializer=None, response_deserializer=None)
        call = method(iter([message]), timeout=seconds_left(deadline_us), metadata=metadata_of(self._token))
        return GrpcSource(call, self._address, self._limit)

    def models(self, deadline_us: int | None) -> list[ModelState]:
        """Ask for the repository's index."""
        method = self._channel.unary_unary(INDEX, request_serializer=None, response_deserializer=None)
        try:
            answer = method(b"", timeout=seconds_left(deadline_us), metadata=metadata_of(self._token))
        except grpc.RpcError as error:
            raise error_of_rpc(error, self._address) from None
        return _protobuf.read_models(answer)

    def close(self) -> None:
        """End the stream and the channel; what waits is answered `Cancelled`."""
        with self._lock:
            self._closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.fail(Cancelled("the client was closed"))
        with contextlib.suppress(ValueError):
            self._channel.close()
