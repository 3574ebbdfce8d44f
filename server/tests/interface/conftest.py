"""One server for these tests, with models of every form."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import described_models
from served_process import Served


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = described_models.write(tmp_path_factory.mktemp("described"))
    served = Served("--control-mode", "explicit", "--load-model", "*", str(repository))
    yield served
    served.end()
