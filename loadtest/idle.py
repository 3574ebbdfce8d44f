"""Many connections that do nothing: what they cost a server in memory and throughput."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SPARE_FILES = 256


def allow_files(count: int) -> None:
    """Raise this process's limit of open files, and so that of the servers it starts.

    Raises:
        ValueError: The hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Hold HTTP/2 connections open, each past its first exchange of SETTINGS."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connections.append(connection)
            connection.sendall(_PREFACE)
        for connection in connections:
            if not connection.recv(9):
                raise ConnectionError("the server closed an idle connection")
        yield
    finally:
        for connection in connections:
            connection.close()
