"""Frames over gRPC for asyncio: `kingpole.v1.Inference/Stream`. Imported on first use only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from kingpole_client import _protobuf
from kingpole_client._address import Address
from kingpole_client._aio_stream import AsyncExchanges
from kingpole_client._clock import seconds_left
from kingpole_client._frame import Frame, split_frame
from kingpole_client._grpc import INDEX, STREAM, channel_options, error_of_rpc, metadata_of
from kingpole_client._messages import Answer, Buffers, encode_cancel
from kingpole_client._parts import ONLY_EXCHANGE
from kingpole_client._values import ModelState
from kingpole_client.errors import Cancelled, KingpoleError, Unavailable


class _AsyncGrpcStream:
    def __init__(self, channel: Any, address: Address, token: str | None, limit: int) -> None:
        self.exchanges = AsyncExchanges()
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._address, self._limit = address, limit
        method = channel.stream_stream(STREAM, request_serializer=None, response_deserializer=None)
        self._call = method(self._feed(), metadata=metadata_of(token))
        self._reading = asyncio.ensure_future(self._read())

    async def _feed(self) -> AsyncIterator[bytes]:
        while (message := await self.requests.get()) is not None:
            yield message

    async def _read(self) -> None:
        error: KingpoleError
        try:
            async for message in self._call:
                unwanted = self.exchanges.answer(split_frame(memoryview(message), self._limit))
                if unwanted is not None:
                    self.requests.put_nowait(b"".join(encode_cancel(unwanted)))
            error = Unavailable(f"{self._address} ended the stream")
        except KingpoleError as refusal:
            error = refusal
        except grpc.RpcError as broken:
            error = error_of_rpc(broken, self._address)
        except asyncio.CancelledError:
            self.exchanges.fail(Cancelled("the client was closed"))
            raise
        self.exchanges.fail(error)
        self._end_feed()

    def _end_feed(self) -> None:
        self.requests.put_nowait(None)
        self._call.cancel()

    async def close(self) -> None:
        self.exchanges.fail(Cancelled("the client was closed"))
        self._end_feed()
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading


class AsyncGrpcSource:
    """The answer to one request, on a call of its own."""

    def __init__(self, call: Any, address: Address, limit: int) -> None:
        self._call, self._address, self._limit = call, address, limit

    async def next(self) -> Frame:
        """Wait for the next frame."""
        try:
            message = await self._call.read()
        except grpc.RpcError as error:
            raise error_of_rpc(error, self._address) from None
        if not isinstance(message, bytes):
            raise Unavailable(f"{self._address} ended the stream before the last response")
        return split_frame(memoryview(message), self._limit)

    async def close(self, *, ended: bool) -> None:
        """End the call; before its answer has ended this cancels the request."""
        if ended:
            # Lets the call end well instead of being reset.
            with contextlib.suppress(grpc.RpcError):
                await self._call.read()
        else:
            self._call.cancel()


class AsyncGrpcTransport:
    """A channel and its stream, opened when first needed and again after it has ended."""

    def __init__(self, address: Address, token: str | None, certificates: bytes | None, limit: int) -> None:
        self._address, self._token, self._certificates, self._limit = address, token, certificates, limit
        self._channel: Any = None
        self._stream: _AsyncGrpcStream | None = None
        self._closed = False

    def _opened(self) -> Any:
        if self._closed:
            raise Cancelled("the client is closed")
        if self._channel is None:
            authority, options = self._address.authority, channel_options(self._limit)
            if self._address.secure:
                credentials = grpc.ssl_channel_credentials(self._certificates)
                self._channel = grpc.aio.secure_channel(authority, credentials, options)
            else:
                self._channel = grpc.aio.insecure_channel(authority, options)
        return self._channel

    async def ask(self, make: Callable[[int], Buffers], *, is_request: bool = False) -> Answer:
        """Send a request and wait for its answer; a cancelled wait cancels the request."""
        channel = self._opened()
        if self._stream is None or self._stream.exchanges.failure is not None:
            self._stream = _AsyncGrpcStream(channel, self._address, self._token, self._limit)
        stream = self._stream
        exchange, future = await stream.exchanges.begin(is_request=is_request)
        try:
            message = b"".join(make(exchange))
        except BaseException:
            stream.exchanges.withdraw(exchange)
            raise
        try:
            stream.requests.put_nowait(message)
            return await future
        finally:
            if stream.exchanges.give_up(exchange) and future.cancelled():
                stream.requests.put_nowait(b"".join(encode_cancel(exchange)))

    def open(self, make: Callable[[int], Buffers]) -> AsyncGrpcSource:
        """Send a request on a call of its own, whose answer may be any number of responses."""
        message = b"".join(make(ONLY_EXCHANGE))
        method = self._opened().stream_stream(STREAM, request_serializer=None, response_deserializer=None)
        return AsyncGrpcSource(
            method(iter([message]), metadata=metadata_of(self._token)), self._address, self._limit
        )

    async def models(self, deadline_us: int) -> list[ModelState]:
        """Ask for the repository's index."""
        method = self._opened().unary_unary(INDEX, request_serializer=None, response_deserializer=None)
        try:
            answer = await method(b"", timeout=seconds_left(deadline_us), metadata=metadata_of(self._token))
        except grpc.RpcError as error:
            raise error_of_rpc(error, self._address) from None
        return _protobuf.read_models(answer)

    async def close(self) -> None:
        """End the stream and the channel; what waits is answered `Cancelled`."""
        self._closed = True
        if self._stream is not None:
            await self._stream.close()
        if self._channel is not None:
            await self._channel.close()
