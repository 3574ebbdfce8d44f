"""HTTP/1.1 from the client's side, on plain sockets, kept alive and shared between threads.

`http.client` parses headers with the mail parser, which alone costs more than a small inference, and joins
bodies; here buffers leave as they are, and the answer is received into memory that is already aligned.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kingpole_client._address import Address
from kingpole_client._clock import seconds_left
from kingpole_client._flatbuffer import MalformedFrame
from kingpole_client._frame import aligned_memory
from kingpole_client._socket import open_socket, send_buffers
from kingpole_client.errors import Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable

_MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024


class HttpAnswer(NamedTuple):
    """Status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: memoryview


class HttpConnection:
    """One connection; one request at a time."""

    def __init__(
        self, address: Address, deadline_us: int | None, tls: ssl.SSLContext | None, limit: int
    ) -> None:
        self._address = address
        self._limit = limit
        self._rest = b""
        self.reusable = False
        self._socket = open_socket(address, deadline_us, tls)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def abort(self) -> None:
        """End it under the thread that uses it, which then closes it."""
        with contextlib.suppress(OSError):
            # Not that of ssl, which would change the object that the other thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def is_dead(self) -> bool:
        """Return whether an idle connection was closed by the server: then nothing has been sent yet."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def exchange(
        self, head: bytes, buffers: Sequence[bytes | memoryview], deadline_us: int | None
    ) -> HttpAnswer:
        """Send one request and receive its answer.

        Raises:
            DeadlineExceeded: The deadline passed.
            Unavailable: The connection broke.
            Internal: The answer is not HTTP.
        """
        self.reusable = False
        try:
            send_error: OSError | None = None
            self._socket.settimeout(None)
            try:
                send_buffers(self._socket, [head, *buffers], deadline_us)
            except TimeoutError:
                raise
            except OSError as error:
                # A server that refuses a body answers and closes before it has read all of it.
                send_error = error
            try:
                answer = self._receive(deadline_us)
            except TimeoutError:
                raise
            except (OSError, Unavailable):
                raise send_error or Unavailable(
                    f"{self._address} closed the connection before it answered"
                ) from None
            if send_error is not None:
                self.reusable = False
            return answer
        except TimeoutError:
            raise DeadlineExceeded(f"no answer came from {self._address} in time") from None
        except OSError as error:
            raise Unavailable(f"the connection to {self._address} broke: {error}") from None

    def begin(
        self, head: bytes, buffers: Sequence[bytes | memoryview], deadline_us: int | None
    ) -> tuple[int, dict[str, str]]:
        """Send one request and receive the head of its answer; `piece` or `rest` gives the body.

        Raises:
            DeadlineExceeded: The deadline passed.
            Unavailable: The connection broke.
            Internal: The answer is not HTTP.
        """
        self.reusable = False
        with self._translated():
            self._socket.settimeout(None)
            send_buffers(self._socket, [head, *buffers], deadline_us)
            status, headers = self._receive_head(deadline_us)
            while 100 <= status < 200:
                status, headers = self._receive_head(deadline_us)
            return status, headers

    def rest(self, headers: dict[str, str], deadline_us: int | None) -> memoryview:
        """Receive the whole body of an answer that `begin` gave the head of."""
        with self._translated():
            if "chunked" in headers.get("transfer-encoding", "").lower():
                return self._receive_chunks(deadline_us)
            return self._receive_body(_length(headers.get("content-length", ""), 10), deadline_us)

    def piece(self, deadline_us: int | None) -> memoryview | None:
        """Receive the next chunk of a body that is sent while it is made, None at its end."""
        with self._translated():
            size = _length(self._receive_line(deadline_us).partition(b";")[0].decode("latin-1").strip(), 16)
            if size == 0:
                while self._receive_line(deadline_us):
                    pass
                self.reusable = not self._rest
                return None
            chunk = self._receive_body(size, deadline_us)
            self._receive_line(deadline_us)
            return chunk

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise DeadlineExceeded(f"no answer came from {self._address} in time") from None
        except OSError as error:
            raise Unavailable(f"the connection to {self._address} broke: {error}") from None

    def _more(self, deadline_us: int | None) -> bytes:
        self._socket.settimeout(seconds_left(deadline_us))
        piece = self._socket.recv(_READ_BYTES)
        if not piece:
            raise Unavailable(f"{self._address} closed the connection")
        return piece

    def _receive(self, deadline_us: int | None) -> HttpAnswer:
        status, headers = self._receive_head(deadline_us)
        while 100 <= status < 200:
            status, headers = self._receive_head(deadline_us)
        keep = headers.get("connection", "keep-alive").lower() != "close"
        if status in (204, 304):
            body = memoryview(b"")
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            body = self._receive_chunks(deadline_us)
        elif "content-length" in headers:
            body = self._receive_body(_length(headers["content-length"], 10), deadline_us)
        else:
            raise MalformedFrame(f"{self._address} answered with a body of no announced length")
        self.reusable = keep and not self._rest
        return HttpAnswer(status, headers, body)

    def _receive_head(self, deadline_us: int | None) -> tuple[int, dict[str, str]]:
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MAX_HEAD_BYTES:
                raise MalformedFrame(f"the answer's headers have more than {_MAX_HEAD_BYTES} bytes")
            data += self._more(deadline_us)
        self._rest = data[end + 4 :]
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (
            status.isascii() and status.isdigit() and len(status) == 3
        ):
            raise MalformedFrame(f"{self._address} does not speak HTTP/1.1: {first[:80]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(status), headers

    def _receive_body(self, nbytes: int, deadline_us: int | None) -> memoryview:
        if nbytes > self._limit:
            raise ResourceExhausted(f"the answer has {nbytes} bytes, this client takes {self._limit}")
        memory = aligned_memory(nbytes)
        have = min(nbytes, len(self._rest))
        memory[:have] = self._rest[:have]
        self._rest = self._rest[have:]
        while have < nbytes:
            self._socket.settimeout(seconds_left(deadline_us))
            received = self._socket.recv_into(memory[have:])
            if not received:
                raise Unavailable(f"{self._address} closed the connection within its answer")
            have += received
        return memory.toreadonly()

    def _receive_chunks(self, deadline_us: int | None) -> memoryview:
        chunks: list[memoryview] = []
        total = 0
        while True:
            size = _length(self._receive_line(deadline_us).partition(b";")[0].decode("latin-1").strip(), 16)
            total += size
            if total > self._limit:
                raise ResourceExhausted(
                    f"the answer has at least {total} bytes, this client takes {self._limit}"
                )
            if size == 0:
                break
            chunks.append(self._receive_body(size, deadline_us))
            self._receive_line(deadline_us)
        while self._receive_line(deadline_us):
            pass
        return memoryview(b"".join(chunks))

    def _receive_line(self, deadline_us: int | None) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > _MAX_HEAD_BYTES:
                raise MalformedFrame("a chunk of the answer has no size")
            self._rest += self._more(deadline_us)
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line


def _length(text: str, base: int) -> int:
    if not text.isalnum() or not text.isascii() or len(text) > 18:
        raise MalformedFrame(f"the answer's length is {text[:40]!r}")
    try:
        return int(text, base)
    except ValueError:
        raise MalformedFrame(f"the answer's length is {text[:40]!r}") from None


class Recall:
    """Lets another thread take a request back: its connection is broken, of which the server hears."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: HttpConnection | None = None
        self._withdrawn = False

    def hold(self, connection: HttpConnection | None) -> None:
        """Note which connection the request is on, None when it is on none any more.

        Raises:
            Cancelled: The request has been taken back.
        """
        with self._lock:
            self._connection = connection
            if self._withdrawn and connection is not None:
                raise Cancelled("the request was given up before it was sent")

    def withdraw(self) -> None:
        """Break the connection that the request is on, now or as soon as it is on one."""
        with self._lock:
            self._withdrawn = True
            if self._connection is not None:
                self._connection.abort()


class HttpPool:
    """Connections to one address, each lent to one thread at a time."""

    def __init__(self, address: Address, token: str | None, tls: ssl.SSLContext | None, limit: int) -> None:
        self._address, self._tls, self._limit = address, tls, limit
        self._lock = threading.Lock()
        self._idle: list[HttpConnection] = []
        self._closed = False
        self._common = f"Host: {address.authority}\r\nUser-Agent: kingpole-client/0.1\r\n"
        if token is not None:
            self._common += f"Authorization: Bearer {token}\r\n"

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        buffers: Sequence[bytes | memoryview],
        deadline_us: int | None,
        recall: Recall | None = None,
    ) -> HttpAnswer:
        """Send one request on an idle connection or a new one. Nothing is ever sent twice.

        The headers describe the body, and go with it. `recall` is how the request may be taken back.
        """
        head = self._head(method, path, headers, buffers)
        connection = self._borrow(deadline_us)
        if recall is None:
            try:
                return connection.exchange(head, buffers, deadline_us)
            finally:
                self.give_back(connection)
        try:
            recall.hold(connection)
            return connection.exchange(head, buffers, deadline_us)
        finally:
            recall.hold(None)
            self.give_back(connection)

    def begin(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        buffers: Sequence[bytes | memoryview],
        deadline_us: int | None,
    ) -> tuple[HttpConnection, int, dict[str, str]]:
        """Send one request; returns the connection to read the body from and to give back, and the head."""
        head = self._head(method, path, headers, buffers)
        connection = self._borrow(deadline_us)
        try:
            return connection, *connection.begin(head, buffers, deadline_us)
        except BaseException:
            connection.close()
            raise

    def _head(
        self, method: str, path: str, headers: Mapping[str, str], buffers: Sequence[bytes | memoryview]
    ) -> bytes:
        content = ""
        if buffers:
            nbytes = sum(len(buffer) for buffer in buffers)
            said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            content = f"{said}Content-Length: {nbytes}\r\n"
        return f"{method} {self._address.prefix}{path} HTTP/1.1\r\n{self._common}{content}\r\n".encode(
            "latin-1"
        )

    def _borrow(self, deadline_us: int | None) -> HttpConnection:
        while True:
            with self._lock:
                if self._closed:
                    raise Cancelled("the client is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return HttpConnection(self._address, deadline_us, self._tls, self._limit)
            if not connection.is_dead():
                return connection
            connection.close()

    def give_back(self, connection: HttpConnection) -> None:
        """Take a connection back that was lent; one that cannot be used again is closed."""
        with self._lock:
            if connection.reusable and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
