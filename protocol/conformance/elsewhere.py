"""A server that knows no frames: what else it is asked, the real server answers.

It refuses a frame as Triton and KServe do, with 404 for a path that they do not have. Knows no client.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CONNECTION_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "host"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    behind = ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass

    def do_GET(self) -> None:
        body = self._body()
        if not self.path.startswith("/v2") or "x-kingpole" in self.headers.get("Content-Type", ""):
            self._answer(404, {"Content-Type": "application/json"}, b'{"detail":"Not Found"}')
            return
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _CONNECTION_HEADERS
        }
        connection = http.client.HTTPConnection(self.behind, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in _CONNECTION_HEADERS}
            self._answer(answer.status, kept, answer.read())

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Elsewhere:
    """Such a server, until it is closed."""

    def __init__(self, behind: str) -> None:
        handler = type("Handler", (_Handler,), {"behind": behind})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
