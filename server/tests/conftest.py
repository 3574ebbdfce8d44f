"""Lets the server's tests use the generated models of the backends' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "backends" / "tests"))
