"""Frames one after another on one socket, for asyncio. The protocol object receives straight into place."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from kingpole_client._address import Address
from kingpole_client._exchanges import MOST_GRANTED, Ledger, Placements, goes_on, one_response
from kingpole_client._frame import Frame, FrameAssembler
from kingpole_client._messages import (
    Answer,
    Buffers,
    InferRequest,
    encode_cancel,
    encode_hand_over,
    exchange_of,
)
from kingpole_client._shared_memory import ARENA, HAND_OVER_US, NOT_SHARED, Placement, SharedMemory
from kingpole_client._socket import CONNECT_TIMEOUT_SECONDS
from kingpole_client._values import Credit
from kingpole_client.errors import Cancelled, InvalidArgument, KingpoleError, Unavailable

_SCRATCH_BYTES = 64 * 1024


class AsyncPermits:
    """How many more requests the server takes. While there are any left nobody waits."""

    def __init__(self) -> None:
        self._left = 1
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Take one, once there is one."""
        if self._left:
            self._left -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                # It came at the moment in which nobody wanted it any more.
                self.release()
            raise

    def release(self, requests: int = 1) -> None:
        """Give some more, first to those that wait."""
        while requests and self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)
                requests -= 1
        self._left = min(self._left + requests, MOST_GRANTED)


class AsyncExchanges:
    """The exchanges of one stream, by number; each is answered exactly once."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._ledger = Ledger()
        self._credit = AsyncPermits()
        self._last = 0
        self._placements = Placements()
        self.failure: KingpoleError | None = None

    async def begin(self, *, is_request: bool) -> tuple[int, asyncio.Future[Answer]]:
        """Take the next number; for a request, once the server allows one more."""
        if is_request:
            await self._credit.acquire()
        if self.failure is not None:
            # Whoever waits for credit next has to learn of it too.
            self._credit.release()
            raise type(self.failure)(self.failure.message)
        self._last += 1
        if not is_request:
            self._ledger.ask(self._last)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = future
        return self._last, future

    def withdraw(self, exchange: int) -> None:
        """Forget an exchange that the server was not told of."""
        self._waiting.pop(exchange, None)
        self._placements.drop(exchange)
        if self._ledger.returned(exchange, True):
            self._credit.release()

    def place(self, exchange: int, placement: Placement) -> None:
        """Keep where a request's tensors are until the server says that it does not use them any more."""
        self._placements.keep(exchange, placement)

    def give_up(self, exchange: int) -> bool:
        """Forget an exchange; returns whether it was still waiting."""
        return self._waiting.pop(exchange, None) is not None

    def answer(self, frame: Frame) -> int | None:
        """Hand a received frame to whom it belongs; returns an exchange to cancel, if there is one.

        Raises:
            KingpoleError: What the server says of the stream as a whole.
        """
        exchange = exchange_of(frame)
        answer = self._placements.decode(exchange, frame)
        self._credit.release(self._ledger.returned(exchange, answer))
        if isinstance(answer, Credit):
            return None
        future = self._waiting.pop(exchange, None)
        if future is None:
            if exchange == 0 and isinstance(answer, KingpoleError):
                raise answer
        elif not future.done():
            future.set_result(one_response(answer))
            return exchange if goes_on(answer) else None
        return None

    def fail(self, error: KingpoleError) -> None:
        """End the stream: everything that waits, and everything later, fails with `error`."""
        if self.failure is None:
            self.failure = error
        waiting, self._waiting = self._waiting, {}
        self._placements.clear()
        self._credit.release()
        for future in waiting.values():
            if not future.done():
                future.set_result(type(error)(error.message))


class _StreamProtocol(asyncio.BufferedProtocol):
    def __init__(self, name: str, limit: int) -> None:
        self.exchanges = AsyncExchanges()
        self._name = name
        self._assembler = FrameAssembler(limit)
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._direct = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.transport: asyncio.Transport | None = None
        self.memory: SharedMemory | None = None

    def buffers(self, make: Callable[[int], Buffers], exchange: int) -> Buffers:
        """Return what is to be sent; what is large goes into the shared memory, if there is some."""
        if self.memory is None or not isinstance(make, InferRequest):
            return make(exchange)
        placement = make.place(self.memory)
        self.exchanges.place(exchange, placement)
        return make.buffers(exchange, placement)

    async def hand_over(self, connection: socket.socket, memory: SharedMemory) -> None:
        """Give the server the memory, before anything else is asked.

        Raises:
            KingpoleError: The server does not take it.
        """
        try:
            exchange, future = await self.exchanges.begin(is_request=False)
            joined = b"".join(encode_hand_over(ARENA, memory.size, exchange))
            sent = socket.send_fds(connection, [joined], [memory.descriptor])
            # The descriptor went with the first byte; nothing else was sent yet, so that there is room.
            if sent != len(joined):
                raise Unavailable(f"{self._name} took {sent} of {len(joined)} bytes")
        except OSError as error:
            raise Unavailable(f"the connection to {self._name} broke: {error}") from None
        finally:
            memory.close_descriptor()
        try:
            answer = await asyncio.wait_for(future, HAND_OVER_US / 1e6)
        except asyncio.TimeoutError:
            raise Unavailable(f"{self._name} did not take the shared memory in time") from None
        if isinstance(answer, KingpoleError):
            raise answer
        self.memory = memory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        space = self._assembler.space()
        self._direct = len(space) >= _SCRATCH_BYTES
        return space if self._direct else self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._direct:
                frame = self._assembler.filled(nbytes)
                frames = [] if frame is None else [frame]
            else:
                frames = self._assembler.feed(self._scratch[:nbytes])
            for frame in frames:
                unwanted = self.exchanges.answer(frame)
                if unwanted is not None and self.transport is not None:
                    self.transport.writelines(encode_cancel(unwanted))
        except KingpoleError as error:
            self.end(error)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = "closed the connection" if exc is None else f"broke the connection: {exc}"
        self.end(Unavailable(f"{self._name} {reason}"))

    def end(self, error: KingpoleError) -> None:
        self.exchanges.fail(error)
        self.writable.set()
        if self.transport is not None:
            self.transport.abort()


class AsyncStreamTransport:
    """A stream to an address, opened when first needed and again after it has ended."""

    def __init__(self, address: Address, limit: int, shared_bytes: int = 0) -> None:
        self._address, self._limit, self._shared_bytes = address, limit, shared_bytes
        self._lock = asyncio.Lock()
        self._stream: _StreamProtocol | None = None
        self._closed = False

    async def ask(self, make: Callable[[int], Buffers], *, is_request: bool = False) -> Answer:
        """Send a request and wait for its answer; a cancelled wait cancels the request."""
        stream = await self._opened()
        exchange, future = await stream.exchanges.begin(is_request=is_request)
        try:
            await stream.writable.wait()
            buffers = stream.buffers(make, exchange)
        except BaseException:
            stream.exchanges.withdraw(exchange)
            raise
        try:
            assert stream.transport is not None
            stream.transport.writelines(buffers)
            return await future
        finally:
            if stream.exchanges.give_up(exchange) and stream.transport is not None and future.cancelled():
                stream.transport.writelines(encode_cancel(exchange))

    async def _opened(self) -> _StreamProtocol:
        async with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
            if self._stream is None or self._stream.exchanges.failure is not None:
                self._stream = await self._open()
            return self._stream

    async def _open(self) -> _StreamProtocol:
        loop, address = asyncio.get_running_loop(), self._address
        name = str(address)

        def factory() -> _StreamProtocol:
            return _StreamProtocol(name, self._limit)

        try:
            if self._shared_bytes:
                return await asyncio.wait_for(self._open_shared(factory), CONNECT_TIMEOUT_SECONDS)
            if address.path:
                opening = loop.create_unix_connection(factory, address.path)
                _, stream = await asyncio.wait_for(opening, CONNECT_TIMEOUT_SECONDS)
            else:
                opening_tcp = loop.create_connection(factory, address.host, address.port)
                _, stream = await asyncio.wait_for(opening_tcp, CONNECT_TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable(
                f"{name} did not accept a connection within {CONNECT_TIMEOUT_SECONDS:.0f} s"
            ) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot connect to {name}: {error}") from None
        return stream

    async def _open_shared(self, factory: Callable[[], _StreamProtocol]) -> _StreamProtocol:
        loop = asyncio.get_running_loop()
        # A socket of our own: descriptors cannot be sent through those of asyncio.
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, self._address.path)
            _, stream = await loop.create_unix_connection(factory, sock=connection)
        except BaseException:
            connection.close()
            raise
        try:
            await stream.hand_over(connection, SharedMemory(self._shared_bytes))
        except BaseException:
            stream.end(Cancelled("the server did not take the shared memory"))
            raise
        return stream

    async def memory(self) -> SharedMemory:
        """Return the memory shared with the server over the connection that there is now."""
        memory = (await self._opened()).memory
        if memory is None:
            raise InvalidArgument(NOT_SHARED)
        return memory

    async def close(self) -> None:
        """End the stream; what waits is answered `Cancelled`."""
        self._closed = True
        if self._stream is not None:
            self._stream.end(Cancelled("the client was closed"))
            # Let the loop close the socket before the caller lets go of the loop.
            await asyncio.sleep(0)
