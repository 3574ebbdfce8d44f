"""Our client beside other people's in one process.

Generated protobuf classes of `inference.*` register themselves in one pool for the whole process, so that
two clients that bring some cannot be imported together. Ours brings none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import Running
from test_clients import ENVIRONMENTS, PROGRAMS, SETUP

CLIENT = Path(__file__).parents[3] / "clients" / "python"
IMPORT_ALL = """
import importlib, pkgutil, sys, kingpole_client
for module in pkgutil.walk_packages(kingpole_client.__path__, "kingpole_client."):
    importlib.import_module(module.name)
assert "grpc" in sys.modules
print(*(name for name in sys.modules if name.startswith("google.protobuf")))
"""


@pytest.mark.parametrize("first", ["kingpole_client", "foreign"])
@pytest.mark.parametrize("foreign", ["tritonclient", "kserve"])
def test_both_infer_in_one_process_whichever_is_imported_first(
    server: Running, foreign: str, first: str
) -> None:
    environment = ENVIRONMENTS / foreign
    if not (environment / ".installed").exists():
        pytest.skip(f"the environment of {foreign} is missing; make it with {SETUP}")
    ended = subprocess.run(
        [environment / "bin" / "python", PROGRAMS / "neighbors.py", server.address, foreign, first],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "10 answers"


def test_no_part_of_our_client_loads_protobuf() -> None:
    loaded = subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True, capture_output=True, text=True)
    assert loaded.stdout.split() == []
