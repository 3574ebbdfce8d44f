"""Frames one after another on one socket, many requests in flight, answers in any order."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future

from kingpole_client._address import Address
from kingpole_client._clock import GRACE_US, now_us
from kingpole_client._exchanges import Exchanges, Pending
from kingpole_client._frame import FrameAssembler
from kingpole_client._messages import Answer, Buffers, InferRequest, encode_cancel, encode_hand_over
from kingpole_client._shared_memory import ARENA, HAND_OVER_US, NOT_SHARED, SharedMemory
from kingpole_client._socket import open_socket, send_buffers
from kingpole_client.errors import Cancelled, DeadlineExceeded, InvalidArgument, KingpoleError, Unavailable

_SCRATCH_BYTES = 64 * 1024
Begun = tuple["Future[Answer]", Callable[[], None]]


class StreamConnection:
    """One socket, and the thread that reads it."""

    def __init__(
        self, connection: socket.socket, name: str, limit: int, memory: SharedMemory | None = None
    ) -> None:
        self._socket, self._name, self.memory = connection, name, memory
        self._exchanges = Exchanges()
        self._send_lock = threading.Lock()
        self._assembler = FrameAssembler(limit)
        threading.Thread(target=self._read, name=f"kingpole {name}", daemon=True).start()

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
            if self.memory is not None and isinstance(make, InferRequest):
                placement = make.place(self.memory)
                self._exchanges.place(exchange, placement)
                buffers = make.buffers(exchange, placement)
            else:
                buffers = make(exchange)
            if deadline_us is not None and now_us() >= deadline_us:
                raise DeadlineExceeded("the timeout passed before the request was sent")
        except BaseException:
            self._exchanges.withdraw(exchange)
            raise
        self._send(buffers, deadline_us)
        return future, lambda: self._cancel(exchange)

    def hand_over(self, memory: SharedMemory, deadline_us: int | None) -> None:
        """Give the server the memory, before anything else is asked.

        Raises:
            KingpoleError: The server does not take it.
        """
        exchange, future = self._exchanges.begin(deadline_us, is_request=False)
        try:
            joined = b"".join(encode_hand_over(ARENA, memory.size, exchange))
            sent = socket.send_fds(self._socket, [joined], [memory.descriptor])
            # The descriptor went with the first byte; nothing else was sent yet, so that there is room.
            if sent != len(joined):
                raise Unavailable(f"{self._name} took {sent} of {len(joined)} bytes")
        except OSError as error:
            raise Unavailable(f"the connection to {self._name} broke: {error}") from None
        finally:
            memory.close_descriptor()
        answer = Pending[Answer](future, lambda answer: answer, deadline_us, lambda: None).result()
        if isinstance(answer, KingpoleError):
            raise answer
        self.memory = memory

    def _send(self, buffers: Buffers, deadline_us: int | None) -> None:
        with self._send_lock:
            try:
                send_buffers(self._socket, buffers, deadline_us)
            except (TimeoutError, DeadlineExceeded):
                # Half a frame may be out: what follows on this stream could not be read.
                self.fail(Unavailable(f"{self._name} stopped reading in the middle of a request"))
                raise DeadlineExceeded(f"{self._name} did not take the request in time") from None
            except OSError as error:
                self.fail(Unavailable(f"the connection to {self._name} broke: {error}"))
                raise Unavailable(f"the connection to {self._name} broke: {error}") from None

    def _cancel(self, exchange: int) -> None:
        if self._exchanges.give_up(exchange):
            with contextlib.suppress(KingpoleError):
                self._send(encode_cancel(exchange), now_us() + GRACE_US)

    def _read(self) -> None:
        scratch = memoryview(bytearray(_SCRATCH_BYTES))
        error: KingpoleError
        try:
            while True:
                space = self._assembler.space()
                if len(space) >= _SCRATCH_BYTES:
                    received = self._socket.recv_into(space)
                    frame = self._assembler.filled(received) if received else None
                    frames = [] if frame is None else [frame]
                else:
                    received = self._socket.recv_into(scratch)
                    frames = self._assembler.feed(scratch[:received])
                for frame in frames:
                    unwanted = self._exchanges.answer(frame)
                    if unwanted is not None:
                        self._send(encode_cancel(unwanted), now_us() + GRACE_US)
                if not received:
                    error = Unavailable(f"{self._name} closed the connection")
                    break
        except KingpoleError as refusal:
            error = refusal
        except OSError as broken:
            error = Unavailable(f"the connection to {self._name} broke: {broken}")
        self.fail(error)

    def fail(self, error: KingpoleError) -> None:
        """End the stream and everything that waits on it."""
        self._exchanges.fail(error)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class StreamTransport:
    """A stream to an address, opened when first needed and again after it has ended."""

    def __init__(
        self, address: Address, tls: ssl.SSLContext | None, limit: int, shared_bytes: int = 0
    ) -> None:
        self._address, self._tls, self._limit, self._shared_bytes = address, tls, limit, shared_bytes
        self._lock = threading.Lock()
        self._connection: StreamConnection | None = None
        self._closed = False

    def start(
        self, make: Callable[[int], Buffers], deadline_us: int | None, *, is_request: bool = False
    ) -> Begun:
        """Send a request on the stream."""
        return self._connected(deadline_us).start(make, deadline_us, is_request=is_request)

    def memory(self) -> SharedMemory:
        """Return the memory shared with the server over the connection that there is now."""
        memory = self._connected(now_us() + HAND_OVER_US).memory
        if memory is None:
            raise InvalidArgument(NOT_SHARED)
        return memory

    def _connected(self, deadline_us: int | None) -> StreamConnection:
        with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
            if self._connection is None or self._connection.failed:
                opened = open_socket(self._address, deadline_us, self._tls)
                connection = StreamConnection(opened, str(self._address), self._limit)
                if self._shared_bytes:
                    try:
                        limit_us = now_us() + HAND_OVER_US
                        until_us = limit_us if deadline_us is None else min(deadline_us, limit_us)
                        connection.hand_over(SharedMemory(self._shared_bytes), until_us)
                    except BaseException:
                        connection.fail(Cancelled("the server did not take the shared memory"))
                        raise
                self._connection = connection
            return self._connection

    def close(self) -> None:
        """End the stream; what waits is answered `Cancelled`."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.fail(Cancelled("the client was closed"))
