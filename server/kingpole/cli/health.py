"""`kingpole health`: a container's health check, run every few seconds for as long as the container lives.

So it knows neither the client nor numpy nor `http.client`, each of which costs more to import than asking
costs; only what is asked over gRPC or in frames goes through the client.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from kingpole.cli import FAILURE, SUCCESS, CommandError
from kingpole.cli.ask import answered, chosen, connect

_PATH = "/v2/health/ready"
# Shorter than what a container engine usually grants a check, so that the reason is still told.
_TIMEOUT_SECONDS = 2
_LONGEST_LINE_BYTES = 4096


def health(url: str | None) -> int:
    """Give 0 when the server is ready."""
    url = chosen(url)
    if url.startswith(("http://", "https://", "unix:")):
        ready = _ready_over_http(url)
    else:
        client = connect(url)
        with answered():
            ready = bool(client.ready())
    print("ready" if ready else "not ready")
    return SUCCESS if ready else FAILURE


def _ready_over_http(url: str) -> bool:
    try:
        where, host, path = _read_address(url)
    except ValueError as error:
        raise CommandError(f"the address {url!r} cannot be read: {error}") from error
    question = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with _connect(where) as stream:
            if url.startswith("https:"):
                import ssl  # only who speaks TLS pays for it

                stream = ssl.create_default_context().wrap_socket(stream, server_hostname=where[0])
            stream.sendall(question)
            status, name = _read_status(stream)
    except (OSError, ValueError) as error:
        raise CommandError(f"no answer from {url}: {error or type(error).__name__}") from error
    if status not in (200, 400, 503):  # Triton says 400 where others say 503
        raise CommandError(f"{url} says neither ready nor not ready: HTTP status {status} {name}".rstrip())
    return status == 200


def _read_address(url: str) -> tuple[tuple[str, int] | str, str, str]:
    """Read where to connect to (a Unix socket's path, or host and port), the `Host` header and the path.

    Raises:
        ValueError: The URL names no host or path, or a port that is none.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ValueError("it has no path")
        return path, "localhost", _PATH
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it has no host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("it may have no user, query or fragment")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.hostname, port), parts.netloc, parts.path.rstrip("/") + _PATH


def _connect(where: tuple[str, int] | str) -> socket.socket:
    if not isinstance(where, str):
        return socket.create_connection(where, timeout=_TIMEOUT_SECONDS)
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(_TIMEOUT_SECONDS)
    try:
        stream.connect(where)
    except OSError:
        stream.close()
        raise
    return stream


def _read_status(stream: socket.socket) -> tuple[int, str]:
    """Read the status of an answer and its name; the body says nothing more.

    Raises:
        ValueError: It is not HTTP.
    """
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    line = b""
    while b"\r\n" not in line and len(line) < _LONGEST_LINE_BYTES:
        stream.settimeout(max(0.001, deadline - time.monotonic()))
        piece = stream.recv(_LONGEST_LINE_BYTES)
        if not piece:
            break
        line += piece
    version, _, rest = line.split(b"\r\n", 1)[0].partition(b" ")
    status, _, name = rest.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise ValueError(f"expected HTTP/1.1, got {line[:40]!r}")
    return int(status), name.decode(errors="replace")
