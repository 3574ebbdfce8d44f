"""Triton's own Python client as a contender: run by the Python of its environment, where nothing of ours is.

    .cache/clients/tritonclient/bin/python loadtest/clients/triton_client.py URL

Prints what `run bench` prints, with the same sizes and blocks as the Python client's.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np

SIZES = ((4, 200), (1_000, 200), (250_000, 40), (2_500_000, 8))
BLOCKS = 5
WARM_UP = 5


def main(url: str) -> None:
    """Measure one transport: that of the URL."""
    scheme, _, authority = url.partition("://")
    triton: Any = importlib.import_module(f"tritonclient.{scheme}")
    client = triton.InferenceServerClient(authority)
    for elements, requests in SIZES:
        x = np.arange(elements, dtype=np.float32).reshape(1, -1)

        def ask(x: Any = x) -> None:
            tensor = triton.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            found = client.infer("echo-fp32", [tensor]).as_numpy("x")
            if found.shape != x.shape or found.flat[-1] != x.flat[-1]:
                raise SystemExit(f"asked with {x.shape}, got {found.shape}")

        for _ in range(WARM_UP):
            ask()
        taken_us = []
        cpu_ns = time.process_time_ns()
        for _ in range(BLOCKS * requests):
            started_ns = time.perf_counter_ns()
            ask()
            taken_us.append((time.perf_counter_ns() - started_ns) // 1000)
        cpu_us = (time.process_time_ns() - cpu_ns) / 1000 / len(taken_us)
        taken_us.sort()
        row = {
            "contender": "tritonclient", "bytes": x.nbytes, "requests": len(taken_us),
            "cpu_us": round(cpu_us, 1), "p50_us": taken_us[len(taken_us) // 2],
            "p99_us": taken_us[int(len(taken_us) * 0.99)],
        }  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
