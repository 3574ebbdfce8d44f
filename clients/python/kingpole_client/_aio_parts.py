"""A request that is answered by any number of responses, for asyncio. Each has a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from kingpole_client._address import Address
from kingpole_client._clock import seconds_left
from kingpole_client._frame import Frame, FrameAssembler
from kingpole_client._messages import Buffers, encode_cancel
from kingpole_client._parts import ONLY_EXCHANGE, decoded, part_of
from kingpole_client._socket import CONNECT_TIMEOUT_SECONDS
from kingpole_client._values import InferResponse
from kingpole_client.errors import DeadlineExceeded, Unavailable

_READ_BYTES = 64 * 1024


class AsyncSource(Protocol):
    """Where the frames of one answer come from."""

    async def next(self) -> Frame:
        """Wait for the next frame."""
        ...

    async def close(self, *, ended: bool) -> None:
        """Let go of it; before the answer has ended this cancels the request."""
        ...


class AsyncResponseStream:
    """The responses to one request, as they come. Closing it before the last one cancels the request.

    It is an asynchronous iterator, and a context manager that closes it; the request is sent when the first
    response is waited for. A cancelled wait cancels the request.
    """

    def __init__(
        self, name: str, opening: Callable[[], Awaitable[AsyncSource]], deadline_us: int | None
    ) -> None:
        self._name, self._opening, self._deadline_us = name, opening, deadline_us
        self._source: AsyncSource | None = None
        self._last = False
        self._closed = False

    def __aiter__(self) -> AsyncResponseStream:
        return self

    async def __anext__(self) -> InferResponse:
        while not self._closed:
            if self._last:
                await self._end(ended=True)
                break
            try:
                response, self._last = part_of(decoded(await self._next()))
            except BaseException:
                await self._end(ended=False)
                raise
            if response is not None:
                return response
        raise StopAsyncIteration

    async def _next(self) -> Frame:
        try:
            if self._source is None:
                self._source = await asyncio.wait_for(self._opening(), seconds_left(self._deadline_us))
            return await asyncio.wait_for(self._source.next(), seconds_left(self._deadline_us))
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"no answer came from {self._name} in time") from None

    async def _end(self, *, ended: bool) -> None:
        self._closed = True
        source, self._source = self._source, None
        if source is not None:
            await source.close(ended=ended)

    async def aclose(self) -> None:
        """Take no more responses; the model is told to make no more."""
        await self._end(ended=self._last)

    async def __aenter__(self) -> AsyncResponseStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSocketSource:
    """Frames on a socket of their own."""

    def __init__(
        self, name: str, limit: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._name, self._reader, self._writer = name, reader, writer
        self._assembler = FrameAssembler(limit)
        self._frames: list[Frame] = []

    @classmethod
    async def open(cls, address: Address, limit: int, make: Callable[[int], Buffers]) -> AsyncSocketSource:
        """Connect and send the request."""
        buffers, name = make(ONLY_EXCHANGE), str(address)
        try:
            opening = (
                asyncio.open_unix_connection(address.path)
                if address.path
                else asyncio.open_connection(address.host, address.port)
            )
            reader, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable(
                f"{name} did not accept a connection within {CONNECT_TIMEOUT_SECONDS:.0f} s"
            ) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot connect to {name}: {error}") from None
        source = cls(name, limit, reader, writer)
        try:
            writer.writelines(buffers)
            await writer.drain()
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, OSError):
                raise Unavailable(f"the connection to {name} broke: {error}") from None
            raise
        return source

    async def next(self) -> Frame:
        """Wait for the next frame."""
        while not self._frames:
            try:
                received = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise Unavailable(f"the connection to {self._name} broke: {error}") from None
            if not received:
                raise Unavailable(f"{self._name} closed the connection within its answer")
            self._frames = self._assembler.feed(memoryview(received))
        return self._frames.pop(0)

    async def close(self, *, ended: bool) -> None:
        """Close the socket; a server need not have answered to hear that nobody wants it to."""
        if not ended:
            self._writer.writelines(encode_cancel(ONLY_EXCHANGE))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
