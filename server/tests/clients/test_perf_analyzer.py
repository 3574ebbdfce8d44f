"""Triton's own load generator measures the server, over HTTP and gRPC.

The binary is inside tritonclient's wheels up to 2.45 and needs libb64 and libcudart: `KINGPOLE_PERF_ANALYZER`
names it, `LD_LIBRARY_PATH` what it needs.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from running import Running
from served import MLP, WORKER_MLP

BINARY = os.environ.get("KINGPOLE_PERF_ANALYZER", "")


def why_not() -> str:
    """Why it cannot be run; nothing if it can."""
    if not BINARY:
        return "KINGPOLE_PERF_ANALYZER names no perf_analyzer"
    try:
        asked = subprocess.run([BINARY, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return f"{BINARY} cannot be run: {error}"
    return "" if asked.returncode == 0 else f"{BINARY} cannot be run: {asked.stderr.strip()}"


def measure(server: Running, model: str, protocol: str, *more: str) -> None:
    """Measure a model for a moment; the statistics are asked for what the server itself spent."""
    ended = subprocess.run(
        [
            *(BINARY, "-m", model, "-u", server.address, "-i", protocol, "-b", "2"),
            *("--concurrency-range", "2", "--measurement-mode", "count_windows"),
            *("--measurement-request-count", "100", "--max-trials", "3", "--stability-percentage", "999"),
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    measured = re.search(r"throughput: ([\d.]+) infer/sec", said)
    assert measured, said
    assert float(measured.group(1)) > 0, said
    assert re.search(r"Inference count: [1-9]", said), said


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("model", [MLP, WORKER_MLP])
def test_perf_analyzer_measures_a_model(server: Running, model: str, protocol: str) -> None:
    measure(server, model, protocol)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize(
    "protocol",
    [
        "http",
        "grpc",
    ],
)
@pytest.mark.parametrize("model", [MLP, WORKER_MLP])
def test_perf_analyzer_measures_over_shared_memory(server: Running, model: str, protocol: str) -> None:
    measure(server, model, protocol, "--shared-memory=system", "--output-shared-memory-size", "4096")
