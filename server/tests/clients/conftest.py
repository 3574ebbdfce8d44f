"""One server for all of these tests, as its users start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
sys.path.insert(0, str(_HERE / "programs"))

import hostile  # noqa: E402 - found by the paths just above
import running  # noqa: E402 - found by the paths just above
import served  # noqa: E402 - found by the paths just above


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    repository = running.write_repository(tmp_path_factory.mktemp("repository"), served)
    with running.serving(repository, served.MLP) as started:
        yield started


@pytest.fixture(scope="session")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A server that loads and unloads what its clients want."""
    repository = running.write_repository(tmp_path_factory.mktemp("controlled"), served)
    explicit = ("--control-mode", "explicit", "--load-model", "*")
    with running.serving(repository, served.MLP, *explicit) as started:
        yield started


@pytest.fixture(scope="session")
def resident_bytes(server: running.Running) -> int:
    """The server's memory once it has answered, before anything bad was sent."""
    hostile.check_well(server)
    return server.resident_bytes()


@pytest.fixture
def address(server: running.Running, resident_bytes: int) -> Iterator[tuple[str, int]]:
    """Where to send something bad; afterwards the server must answer well and be no larger."""
    yield server.host, server.port
    hostile.check_well(server)
    grown = server.resident_bytes() - resident_bytes
    assert grown < hostile.GROWTH_BYTES, f"the server grew by {grown} bytes"
