"""The few calls of the core by which models come and go.

Knows neither the core nor models: it says what the lifecycle may ask for, so that tests can
stand in for it.
"""

from __future__ import annotations

from typing import Protocol

from kingpole.repository import Files


class Core(Protocol):
    """What the lifecycle needs of `kingpole._core.Server`."""

    def open(self, request: bytes) -> bytes:
        """Load without serving."""
        ...

    def serve(self, handle: int, specification: bytes) -> bytes:
        """Warm up and serve."""
        ...

    def withdraw(self, handle: int) -> None:
        """Serve no more; what was admitted goes on."""
        ...

    def close(self, handle: int) -> None:
        """Withdraw and unload."""
        ...

    def set_index(self, rows: bytes) -> None:
        """Tell what is not served."""
        ...

    def set_expected(self, ready: bool) -> None:
        """Tell whether all is served that should be."""
        ...

    def next_control(self, timeout_ms: int) -> bytes | None:
        """Wait for a request to load or unload, or for word of a model that was lost with its worker."""
        ...

    def take_files(self, token: int) -> Files:
        """The files that came with such a request; they are given once."""
        ...

    def complete_control(self, token: int, code: str | None, message: str) -> None:
        """Answer such a request."""
        ...
