"""Drives a real worker process over its socket, as the server does."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kingpole.signature import TensorSpec
from kingpole.worker.arenas import aligned
from kingpole.worker.packets import PACKET_BYTES
from kingpole.worker.serving import PARTS_ON_THE_WAY

BYTES = 1 << 16
ECHO = """
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
MAX_BATCH_SIZE = 8
def infer(x):
    return %s
"""


class WorkerProcess:
    def __init__(self) -> None:
        self.socket, inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kingpole.worker", "--fd", str(inherited.fileno())],
            pass_fds=[inherited.fileno()],
            stderr=subprocess.PIPE,
            env={**os.environ, "KINGPOLE_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        inherited.close()
        self.descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, BYTES)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.memory = mmap.mmap(self.descriptor, BYTES)
        self.is_arena_sent = False
        self.received: list[int] = []
        self.part_arenas: dict[int, int] = {}
        self.ready = self.receive()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def receive(self) -> dict[str, Any]:
        data, self.received, _, _ = socket.recv_fds(self.socket, PACKET_BYTES, 1)
        return msgspec.msgpack.decode(data)

    def load(self, directory: Path, backend: str = "python", **configuration: Any) -> dict[str, Any]:
        self.send(
            "load",
            handle=7,
            backend=backend,
            directory=str(directory),
            configuration={"name": "m", **configuration},
            device="cpu",
        )
        return self.receive()

    def execute(
        self,
        x: np.ndarray,
        *,
        free: int = 4096,
        rows: int | None = None,
        parameters: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        self.memory[: x.nbytes] = x.tobytes()
        offset = aligned(x.nbytes)
        packet = msgspec.msgpack.encode(
            {
                "type": "execute",
                "sequence": 99,
                "handle": 7,
                "arena": 0,
                "inputs": [["x", "FP32", x.shape, 0, x.nbytes]],
                "rows": len(x) if rows is None else rows,
                "request_rows": [len(x)] if not parameters else [len(x) // len(parameters)] * len(parameters),
                "free": [offset, free],
                "parameters": [] if parameters is None else parameters,
            }
        )
        socket.send_fds(self.socket, [packet], [] if self.is_arena_sent else [self.descriptor])
        self.is_arena_sent = True
        return self.receive()

    def output(self, memory: Any, row: list[Any]) -> np.ndarray:
        _, _, shape, offset, nbytes = row
        return np.frombuffer(bytes(memory[offset : offset + nbytes]), np.float32).reshape(shape)

    def end(self) -> bytes:
        self.socket.close()
        _, errors = self.process.communicate(timeout=60)
        return errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.socket.close()
        self.memory.close()
        os.close(self.descriptor)
        for descriptor in self.received:
            os.close(descriptor)


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    made = WorkerProcess()
    yield made
    made.close()


def write_counting(directory: Path, steps: int) -> Path:
    (directory / "model.py").write_text(COUNTS % steps)
    return directory


def write(directory: Path, expression: str) -> Path:
    (directory / "model.py").write_text(ECHO % expression)
    return directory


def test_a_worker_says_who_it_is(worker: WorkerProcess) -> None:
    assert worker.ready["type"] == "ready"
    assert worker.ready["pid"] == worker.process.pid


def test_a_load_answers_with_the_signature(worker: WorkerProcess, tmp_path: Path) -> None:
    loaded = worker.load(write(tmp_path, "x"))
    assert loaded["type"] == "loaded"
    assert loaded["handle"] == 7
    assert loaded["inputs"] == [["x", "FP32", [-1, 4]]]
    assert loaded["outputs"] == [["y", "FP32", [-1, 4]]]
    assert loaded["max_batch_size"] == 8


def test_a_failing_load_answers_with_the_reason(worker: WorkerProcess, tmp_path: Path) -> None:
    failed = worker.load(tmp_path)
    assert (failed["type"], failed["code"]) == ("failed", "FAILED_PRECONDITION")
    assert failed["message"] == "model.py is missing"


def test_an_unknown_backend_is_named(worker: WorkerProcess, tmp_path: Path) -> None:
    failed = worker.load(tmp_path, backend="abacus")
    assert "unknown backend 'abacus'" in failed["message"]


def test_outputs_are_written_into_the_free_space_of_the_batchs_arena(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.load(write(tmp_path, "x * 2"))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    done = worker.execute(x)
    assert (done["type"], done["sequence"], done["arena"]) == ("done", 99, 0)
    (row,) = done["outputs"]
    assert row[3] % 64 == 0
    np.testing.assert_array_equal(worker.output(worker.memory, row), x * 2)
    assert worker.received == []


def test_outputs_that_do_not_fit_come_in_an_arena_of_the_workers_own(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.load(write(tmp_path, "x + 1"))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    done = worker.execute(x, free=16)
    assert done["arena"] % 2 == 1
    (descriptor,) = worker.received
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    np.testing.assert_array_equal(worker.output(memory, done["outputs"][0]), x + 1)
    os.close(descriptor)
    worker.send("release", arena=done["arena"])
    again = worker.execute(x + 5, free=0)
    assert again["arena"] == done["arena"], "a released arena is used again"
    assert worker.received == []
    np.testing.assert_array_equal(worker.output(memory, again["outputs"][0]), x + 6)
    memory.close()


def test_an_exception_answers_the_batch_and_leaves_the_worker_alive(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.load(write(tmp_path, "1 / 0 if x[0, 0] < 0 else x"))
    x = np.ones((1, 4), np.float32)
    error = worker.execute(-x)
    assert (error["type"], error["sequence"], error["code"]) == ("error", 99, "INTERNAL")
    assert error["message"] == "ZeroDivisionError: division by zero"
    assert worker.execute(x)["type"] == "done"
    errors = worker.end()
    assert b"[m] " in errors
    assert b"model.py" in errors, "the traceback is in the log"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("x[:1]", "output 'y': expected 2 rows, got 1"),
        ("x[:, :3]", "output 'y': expected shape [-1,4], got [2,3]"),
        ("x.astype('int64')", "output 'y': expected datatype FP32, got INT64"),
        ("{'z': x}", "did not return output 'y'"),
        ("(x, x)", "returned 2 outputs, 1 are declared"),
    ],
)
def test_outputs_that_are_not_as_declared_fail_the_batch(
    worker: WorkerProcess, tmp_path: Path, expression: str, reason: str
) -> None:
    worker.load(write(tmp_path, expression))
    error = worker.execute(np.ones((2, 4), np.float32))
    assert error["type"] == "error"
    assert reason in error["message"]


def test_a_code_that_the_model_chooses_is_kept(worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from kingpole.contract import ModelError\n"
        + ECHO.replace("return %s", "raise ModelError('INVALID_ARGUMENT', 'too cold')")
    )
    worker.load(tmp_path)
    error = worker.execute(np.ones((1, 4), np.float32))
    assert (error["code"], error["message"]) == ("INVALID_ARGUMENT", "too cold")


def test_an_unloaded_model_is_gone(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.load(write(tmp_path, "x"))
    worker.send("unload", handle=7)
    assert worker.receive() == {"type": "unloaded", "handle": 7}
    assert worker.execute(np.ones((1, 4), np.float32))["type"] == "error"


def test_stop_ends_with_0_and_a_closed_socket_with_1(worker: WorkerProcess) -> None:
    worker.send("stop")
    assert worker.process.wait(timeout=60) == 0
    other = WorkerProcess()
    other.end()
    assert other.process.returncode == 1
    other.close()


def test_ctrl_c_does_not_reach_a_worker(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.process.send_signal(signal.SIGINT)
    assert worker.load(write(tmp_path, "x"))["type"] == "loaded"


def test_a_mismatch_names_what_was_expected() -> None:
    spec = TensorSpec("y", "FP32", (-1, 4))
    assert spec.mismatch((3, 4)) is None
    assert spec.mismatch((4,)) == "expected shape [-1,4], got [4]"


COUNTS = ECHO.replace("return %s", "for step in range(%s):\n        yield x + step")


def part_of(worker: WorkerProcess, said: dict[str, Any]) -> np.ndarray:
    """The one output of a part, from the worker's own arena, which is then released."""
    assert said["type"] == "part", said
    if worker.received:
        worker.part_arenas[said["arena"]] = worker.received[0]
    size = os.fstat(worker.part_arenas[said["arena"]]).st_size
    with mmap.mmap(worker.part_arenas[said["arena"]], size) as memory:
        return worker.output(memory, said["outputs"][0])


def test_a_generator_answers_with_each_value_that_it_yields(worker: WorkerProcess, tmp_path: Path) -> None:
    loaded = worker.load(write_counting(tmp_path, 3))
    assert loaded["decoupled"] is True
    said = worker.execute(np.ones((1, 4), np.float32))
    for step in range(3):
        np.testing.assert_array_equal(part_of(worker, said), np.full((1, 4), 1 + step, np.float32))
        worker.send("release", arena=said["arena"])
        said = worker.receive()
    assert (said["type"], said["outputs"]) == ("done", [])


def test_a_model_of_many_parts_waits_until_they_are_taken(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.load(write_counting(tmp_path, 10))
    parts = [worker.execute(np.zeros((1, 4), np.float32))]
    parts += [worker.receive() for _ in range(PARTS_ON_THE_WAY - 1)]
    worker.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        worker.receive()
    worker.socket.settimeout(60)
    worker.send("release", arena=parts[0]["arena"])
    said = worker.receive()
    assert (said["type"], said["arena"]) == ("part", parts[0]["arena"]), "what was released is used again"


def test_a_model_whose_parts_nobody_wants_is_closed_and_the_next_batch_runs(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(
        COUNTS.replace("range(%s)", "iter(int, 1)").replace("    for", "    try:\n     for")
        + "\n    finally: open(__file__ + '.closed', 'w').close()\n"
    )
    worker.load(tmp_path)
    first = worker.execute(np.zeros((1, 4), np.float32))
    worker.send("cancel", sequence=99)
    said = first
    while said["type"] == "part":
        said = worker.receive()
    assert said["type"] == "done"
    assert (tmp_path / "model.py.closed").exists()


def test_parameters_come_one_for_each_row(worker: WorkerProcess, tmp_path: Path) -> None:
    source = ECHO.replace("def infer(x):", "def infer(x, parameters):") % (
        "x * np.array([[each.get('by', 1)] for each in parameters], np.float32)"
    )
    (tmp_path / "model.py").write_text("import numpy as np\n" + source)
    worker.load(tmp_path)
    said = worker.execute(np.ones((4, 4), np.float32), parameters=[{"by": 2}, {"by": 5}])
    assert said["type"] == "done", said
    np.testing.assert_array_equal(worker.output(worker.memory, said["outputs"][0])[:, 0], [2, 2, 5, 5])
    said = worker.execute(np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(worker.output(worker.memory, said["outputs"][0])[:, 0], [1, 1])


def test_a_connection_error_of_the_model_is_only_its_own(worker: WorkerProcess, tmp_path: Path) -> None:
    source = ECHO.replace("return %s", "raise ConnectionRefusedError('no database')\n    return x")
    (tmp_path / "model.py").write_text(source)
    worker.load(tmp_path)
    for _ in range(2):
        said = worker.execute(np.ones((1, 4), np.float32))
        assert (said["type"], said["code"]) == ("error", "INTERNAL")
        assert "no database" in said["message"]
