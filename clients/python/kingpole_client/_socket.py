"""Opening sockets and writing buffers to them without joining them. Knows no protocol."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Sequence

from kingpole_client._address import Address
from kingpole_client._clock import seconds_left
from kingpole_client.errors import DeadlineExceeded, Unavailable

# Linux takes 1024 buffers a call (IOV_MAX).
_MOST_BUFFERS = 512
CONNECT_TIMEOUT_SECONDS = 10.0


def open_socket(address: Address, deadline_us: int | None, tls: ssl.SSLContext | None) -> socket.socket:
    """Connect.

    Raises:
        Unavailable: Nobody answers at the address, which is named.
        DeadlineExceeded: The deadline passed first.
    """
    left = seconds_left(deadline_us)
    timeout = CONNECT_TIMEOUT_SECONDS if left is None else min(left, CONNECT_TIMEOUT_SECONDS)
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
            connection.settimeout(None)
            return connection
        connection = socket.create_connection((address.host, address.port), timeout)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.secure:
            tls = tls or ssl.create_default_context()
            try:
                return tls.wrap_socket(connection, server_hostname=address.host)
            except BaseException:
                connection.close()
                raise
        connection.settimeout(None)
        return connection
    except TimeoutError:
        if left is not None and left <= CONNECT_TIMEOUT_SECONDS:
            raise DeadlineExceeded(f"{address} did not accept a connection in time") from None
        raise Unavailable(
            f"{address} did not accept a connection within {CONNECT_TIMEOUT_SECONDS:.0f} s"
        ) from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot connect to {address}: {error}") from None


def send_buffers(
    connection: socket.socket, buffers: Sequence[bytes | memoryview], deadline_us: int | None
) -> None:
    """Write all buffers, one after another; none is copied where the system can gather them.

    The socket must be blocking. Its timeout is left alone: another thread may be reading.

    Raises:
        TimeoutError: The deadline passed with some bytes unsent.
    """
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(seconds_left(deadline_us))
        for buffer in buffers:
            connection.sendall(buffer)
        return
    waiting = list(buffers)
    first = 0
    while first < len(waiting):
        try:
            sent = connection.sendmsg(waiting[first : first + _MOST_BUFFERS], [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            _wait_writable(connection, deadline_us)
            continue
        while first < len(waiting) and sent >= len(waiting[first]):
            sent -= len(waiting[first])
            first += 1
        if sent:
            waiting[first] = memoryview(waiting[first])[sent:]


def _wait_writable(connection: socket.socket, deadline_us: int | None) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    try:
        left = seconds_left(deadline_us)
    except DeadlineExceeded:
        raise TimeoutError from None
    if not poll.poll(None if left is None else left * 1000 + 1):
        raise TimeoutError
