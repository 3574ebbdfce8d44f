"""One server for all of these tests, as its users start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
sys.path.insert(0, str(_HERE / "programs"))

import running
import served


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    repository = running.write_repository(tmp_path_factory.mktemp("repository"), served)
    with running.serving(repository, served.MLP) as started:
        yield started
