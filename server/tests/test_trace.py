"""Traces, as Triton's clients ask for them and its tools read them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served_process import PLUS, Served, needs_core, refused_at_the_start, start, write_model

__all__ = ["start"]
pytestmark = needs_core

NAMES = [
    "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START",
    "COMPUTE_END", "REQUEST_END",
]  # fmt: skip


def traces(file: Path, number: int) -> list[dict[str, Any]]:
    """What is in the file once there are so many traces: it is a whole JSON document at any time."""
    deadline = time.monotonic() + 10
    while True:
        entries = json.loads(file.read_text())
        if len(entries) >= 2 * number:
            return entries
        assert time.monotonic() < deadline, entries
        time.sleep(0.01)


@pytest.fixture
def server(start: Callable[..., Served], tmp_path: Path) -> Served:
    for name in ("plus", "quiet"):
        write_model(
            tmp_path / "models", name, PLUS.replace("return", "import time; time.sleep(0.01)\n    return")
        )
    return start("--trace-file", tmp_path / "traces.json", tmp_path / "models")


def test_one_request_in_so_many_is_traced_while_a_client_wants_it(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "traces.json"
    assert "trace" in server.ask("/v2")[1]["extensions"]
    server.infer("plus", [[1, 2, 3, 4]])
    assert json.loads(file.read_text()) == []
    status, told = server.ask("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_rate": "2"})
    assert (status, told["trace_level"], told["trace_rate"]) == (200, ["TIMESTAMPS"], "2")
    assert server.ask("/v2/models/quiet/trace/setting", {"trace_level": ["OFF"]})[0] == 200
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    for number in range(6):
        assert server.ask("/v2/models/plus/infer", {"id": f"r{number}", **body})[0] == 200
        assert server.ask("/v2/models/quiet/infer", body)[0] == 200
    entries = traces(file, 3)
    assert [entry["request_id"] for entry in entries[::2]] == ["r0", "r2", "r4"]
    assert {entry["model_name"] for entry in entries[::2]} == {"plus"}
    for named, timed in zip(entries[::2], entries[1::2], strict=True):
        assert named["id"] == timed["id"]
        assert [each["name"] for each in timed["timestamps"]] == NAMES
        at = {each["name"]: each["ns"] for each in timed["timestamps"]}
        assert list(at.values()) == sorted(at.values())
        assert at["COMPUTE_END"] - at["COMPUTE_START"] >= 10_000_000
    # Enough of it.
    assert server.ask("/v2/trace/setting", {"trace_level": ["OFF"]})[0] == 200
    for _ in range(4):
        server.infer("plus", [[1, 2, 3, 4]])
    assert len(traces(file, 3)) == 6


def test_a_count_ends_by_itself(server: Served, tmp_path: Path) -> None:
    wish = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "2"}
    assert server.ask("/v2/models/plus/trace/setting", wish)[0] == 200
    for _ in range(4):
        server.infer("plus", [[1, 2, 3, 4]])
    assert server.ask("/v2/models/plus/trace/setting")[1]["trace_count"] == "0"
    assert len(traces(tmp_path / "traces.json", 2)) == 4


def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    write_model(tmp_path, "plus", PLUS)
    assert "trace_file:" in refused_at_the_start("--trace-file", tmp_path / "nowhere" / "t.json", tmp_path)
