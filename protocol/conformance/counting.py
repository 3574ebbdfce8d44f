"""A Unix socket before another: passes on bytes and descriptors, and counts the bytes. Knows no protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

_PIECE_BYTES = 1 << 16
_MOST_DESCRIPTORS = 16


class CountingSocket:
    """Listens at a path until it is closed; `passed_bytes` is what went through, both ways."""

    def __init__(self, path: Path, behind: str) -> None:
        self.path, self._behind = path, behind
        self.passed_bytes = 0
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening; what is connected stays so until one of its ends leaves."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._behind)
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(source, _PIECE_BYTES, _MOST_DESCRIPTORS)
                if not data:
                    break
                with self._lock:
                    self.passed_bytes += len(data)
                try:
                    sent = socket.send_fds(target, [data], descriptors) if descriptors else 0
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
                target.sendall(data[sent:])
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
