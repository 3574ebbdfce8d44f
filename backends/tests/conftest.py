"""Lets the tests of all backends share the contract test and the generated models."""

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")
sys.path.insert(0, str(Path(__file__).parent))
