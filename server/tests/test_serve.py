"""The whole server: `python -m kingpole serve` as a process, asked over HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx_models
import pytest
from served_process import PLUS, Served, needs_core, start

__all__ = ["start"]
pytestmark = needs_core


def test_a_model_is_inferred(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    status, answer = served.infer("double", [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert status == 200
    assert answer["model_name"] == "double"
    assert answer["outputs"][0]["shape"] == [2, 4]
    assert answer["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert served.ask("/v2/health/ready")[0] == 200


@pytest.mark.parametrize("worker", ["inline", "shared", "own"])
def test_a_model_answers_alike_wherever_it_runs(
    start: Callable[..., Served], tmp_path: Path, worker: str
) -> None:
    served = start("--worker", worker, onnx_models.doubling(tmp_path / "double.onnx"))
    assert f"runs {worker}" in "\n".join(served.lines)
    assert served.infer("double", [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == [2, 4, 6, 8]


def test_an_unknown_model_is_404(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    status, answer = served.infer("triple", [[1, 2, 3, 4]])
    assert status == 404
    assert "Request for unknown model" in answer["error"]


def test_a_wrong_shape_is_400_and_named(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    status, answer = served.infer("double", [[1, 2, 3]])
    assert status == 400
    assert "'x'" in answer["error"]


def test_a_broken_model_leaves_the_server_up_and_not_ready(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    onnx_models.doubling(tmp_path / "good.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    served = start(tmp_path)
    assert served.infer("good", [[1, 2, 3, 4]])[0] == 200
    assert served.ask("/v2/health/live")[0] == 200
    assert served.ask("/v2/health/ready")[0] == 503
    assert served.ask("/healthz", base=served.management)[0] == 503
    rows = {row["name"]: row for row in served.ask("/repository", base=served.management)[1]}
    assert rows["bad"]["state"] == "UNAVAILABLE"
    assert rows["bad"]["reason"]


def test_a_python_model_is_served_and_survives_the_death_of_its_worker(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "plus" / "1").mkdir(parents=True)
    (tmp_path / "plus" / "1" / "model.py").write_text(PLUS)
    served = start(tmp_path)
    assert served.infer("plus", [[1, 2, 3, 4]])[1]["outputs"][0]["data"] == [2, 3, 4, 5]
    workers = served.children()
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    status, answer = served.infer("plus", [[1, 2, 3, 4]])
    assert (status, answer["outputs"][0]["data"]) == (200, [2, 3, 4, 5])


def test_metrics_are_on_the_management_port(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    served.infer("double", [[1, 2, 3, 4]])
    status, text = served.ask("/metrics", base=served.management)
    assert status == 200
    assert 'model="double"' in text


def test_a_model_is_loaded_on_request(start: Callable[..., Served], tmp_path: Path) -> None:
    onnx_models.doubling(tmp_path / "double.onnx")
    served = start("--control-mode", "explicit", tmp_path)
    assert served.infer("double", [[1, 2, 3, 4]])[0] != 200
    assert served.ask("/v2/repository/models/double/load", {})[0] == 200
    assert served.infer("double", [[1, 2, 3, 4]])[0] == 200
    assert served.ask("/v2/repository/models/double/unload", {})[0] == 200
    assert served.infer("double", [[1, 2, 3, 4]])[0] != 200


def test_a_termination_signal_drains_and_ends_with_0(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(timeout=60) == 0
    served.read_until("stopped")


def _gated(repository: Path, gate: Path) -> None:
    """A model that reads a FIFO before it answers the value 99, so that a test decides when it answers."""
    os.mkfifo(gate)
    (repository / "gated" / "1").mkdir(parents=True)
    (repository / "gated" / "1" / "model.py").write_text(
        PLUS.replace("return x + 1", f"if x[0, 0] == 99: open({str(gate)!r}).read()\n    return x + 1")
    )


@pytest.mark.parametrize("reactors", ["1", "2"])
def test_what_is_in_flight_at_a_termination_signal_is_answered(
    start: Callable[..., Served], tmp_path: Path, reactors: str
) -> None:
    _gated(tmp_path / "models", tmp_path / "gate")
    served = start("--reactors", reactors, tmp_path / "models")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.infer, "gated", [[99, 0, 0, 0]])
        gate = os.open(tmp_path / "gate", os.O_WRONLY)  # returns when the model has begun to read
        served.process.send_signal(signal.SIGTERM)
        served.read_until("draining")
        os.close(gate)
        status, outputs = answer.result(timeout=60)
    assert (status, outputs["outputs"][0]["data"]) == (200, [100, 1, 1, 1])
    assert served.process.wait(timeout=60) == 0


def test_what_is_in_flight_at_the_death_of_a_worker_is_answered(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    _gated(tmp_path / "models", tmp_path / "gate")
    served = start(tmp_path / "models")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.infer, "gated", [[99, 0, 0, 0]])
        first = os.open(tmp_path / "gate", os.O_WRONLY)
        for pid in served.children():
            os.kill(pid, signal.SIGKILL)
        served.read_until("kingpole: the worker")  # it is gone, and another one starts
        os.close(first)
        os.close(os.open(tmp_path / "gate", os.O_WRONLY))  # the next worker has begun to read
        status, outputs = answer.result(timeout=60)
    assert (status, outputs["outputs"][0]["data"]) == (200, [100, 1, 1, 1])


def test_an_address_that_is_taken_is_named(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start(onnx_models.doubling(tmp_path / "double.onnx"))
    second = subprocess.run(
        [sys.executable, "-m", "kingpole", "serve", "--listen", served.management.removeprefix("http://"),
         "--management", "off", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert second.returncode == 3
    assert "cannot listen" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_server_process_stays_small(start: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "plus").mkdir()
    (tmp_path / "plus" / "model.py").write_text(PLUS)
    served = start(tmp_path)
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    assert resident
    assert int(resident.group(1)) < 80 * 1024
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "numpy" not in maps
