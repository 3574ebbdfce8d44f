"""A server's address, read from a URL. Opens no socket."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from kingpole_client.errors import InvalidArgument

_PORTS = {"http": 80, "https": 443, "grpc": 8000, "grpcs": 443, "frame": 8000}


class Address(NamedTuple):
    """Where a server is; `path` is set for Unix sockets only, then host and port are not."""

    scheme: str
    host: str
    port: int
    path: str
    prefix: str

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def secure(self) -> bool:
        """True where TLS is spoken."""
        return self.scheme in ("https", "grpcs")

    @property
    def authority(self) -> str:
        """Host and port as they stand in a `Host` header."""
        if self.path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read `http://`, `https://`, `grpc://`, `grpcs://`, `frame://` with host and port, or `unix:/path`.

    Raises:
        InvalidArgument: It is none of these.
    """
    if url.startswith("unix:"):
        path = url[5:]
        if path.startswith("//"):
            path = path[2:]
        if not path:
            raise InvalidArgument(f"the address {url!r} has no path")
        return Address("unix", "", 0, path, "")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(f"the address {url!r} cannot be read: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        known = ", ".join(f"{scheme}://host:port" for scheme in _PORTS)
        raise InvalidArgument(f"the address {url!r} is none of {known}, unix:/path")
    if parts.username or parts.query or parts.fragment:
        raise InvalidArgument(f"the address {url!r} may have no user, query or fragment; pass token= instead")
    prefix = parts.path.rstrip("/")
    if prefix and parts.scheme not in ("http", "https"):
        raise InvalidArgument(f"the address {url!r} may have no path")
    return Address(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port, "", prefix)
