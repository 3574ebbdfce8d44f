"""A core without sockets: it loads through the real backends and remembers what it was told."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from typing import Any

from kingpole.contract import Model, find_backend


class MemoryCore:
    def __init__(self) -> None:
        self.opened: dict[int, Model] = {}
        self.served: dict[int, dict[str, Any]] = {}
        self.index: list[list[Any]] = []
        self.is_ready: bool | None = None
        self.history: list[tuple[str, int]] = []
        self.controls: queue.Queue[bytes] = queue.Queue()
        self.completed: queue.Queue[tuple[int, str | None, str]] = queue.Queue()
        self.files: dict[int, list[tuple[str, bytes]]] = {}
        self.may_close = threading.Event()
        """Cleared, a version's requests do not end, so that closing it waits."""
        self.may_close.set()
        self._lock = threading.Lock()

    def open(self, request: bytes) -> bytes:
        wanted = json.loads(request)
        model = find_backend(wanted["backend"]).load(
            Path(wanted["directory"]), wanted["configuration"], wanted["device"]
        )
        with self._lock:
            handle = len(self.history) + 1
            self.opened[handle] = model
            self.history.append(("open", handle))
        signature = model.signature
        return json.dumps(
            {
                "handle": handle,
                "placed": "shared",
                "platform": signature.platform,
                "inputs": [spec.row() for spec in signature.inputs],
                "outputs": [spec.row() for spec in signature.outputs],
                "max_batch_size": signature.max_batch_size,
                "description": signature.description,
                "notes": list(signature.notes),
            }
        ).encode()

    def serve(self, handle: int, specification: bytes) -> bytes:
        with self._lock:
            self.served[handle] = json.loads(specification)
            self.history.append(("serve", handle))
        return json.dumps({"placed": "shared", "profile": [[1, 10]], "notes": []}).encode()

    def withdraw(self, handle: int) -> None:
        with self._lock:
            self.served.pop(handle, None)
            self.history.append(("withdraw", handle))

    def close(self, handle: int) -> None:
        with self._lock:
            self.served.pop(handle, None)
        self.may_close.wait(30)
        with self._lock:
            self.opened.pop(handle).close()
            self.history.append(("close", handle))

    def set_index(self, rows: bytes) -> None:
        self.index = json.loads(rows)

    def set_expected(self, ready: bool) -> None:
        self.is_ready = ready

    def next_control(self, timeout_ms: int) -> bytes | None:
        try:
            return self.controls.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            return None

    def take_files(self, token: int) -> list[tuple[str, bytes]]:
        return self.files.pop(token, [])

    def complete_control(self, token: int, code: str | None, message: str) -> None:
        self.completed.put((token, code, message))

    def metrics(self) -> str:
        return "kingpole_up 1\n"

    def statistics(self) -> bytes:
        return b"[]"

    def names(self) -> list[str]:
        return sorted(f"{each['name']}/{each['version']}" for each in self.served.values())
