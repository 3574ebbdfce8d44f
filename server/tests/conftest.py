"""Lets the server's tests share their core in memory, and the generated models of the backends' tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "backends" / "tests")]
