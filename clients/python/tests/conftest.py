"""Lets these tests import `frame_server` and `real_server`, which stand beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
