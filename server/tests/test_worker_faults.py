"""Models and workers that misbehave: each costs what it must, and no other model notices."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kingpole_client._frame import FrameAssembler
from kingpole_client._messages import InferRequest, decode_answer, encode_cancel, exchange_of
from kingpole_client._values import Credit
from kingpole_client.errors import KingpoleError
from served_process import PLUS, Served, needs_core, start, write_model

__all__ = ["start"]
pytestmark = needs_core

STUCK = PLUS.replace("return x + 1", "while x[0, 0] == 99: pass\n    return x + 1")
LOADS_FOREVER = "while True: pass\n" + PLUS
LOADS_ONCE = (
    "import pathlib\nmarker = pathlib.Path(__file__).with_name('loaded')\n"
    "if marker.exists(): raise RuntimeError('only once')\nmarker.touch()\n" + PLUS
)
CRASHES = "import ctypes\nctypes.string_at(0)\n" + PLUS


def outputs(answer: tuple[int, dict]) -> list[float]:
    status, body = answer
    assert status == 200, body
    return body["outputs"][0]["data"]


def test_a_batch_that_never_ends_costs_its_own_request_only(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path, "stuck", STUCK)
    write_model(tmp_path, "plus", PLUS)
    served = start("--execute-limit-seconds", "1", tmp_path)
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(served.infer, "stuck", [[99, 0, 0, 0]])
        others = [pool.submit(served.infer, "plus", [[value, 0, 0, 0]]) for value in range(5)]
        assert [outputs(each.result())[0] for each in others] == [1, 2, 3, 4, 5]
        status, answer = stuck.result()
    assert status == 500
    assert "ran for more than 1 s" in answer["error"]
    assert outputs(served.infer("stuck", [[1, 2, 3, 4]])) == [2, 3, 4, 5]
    assert served.ask("/v2/health/ready")[0] == 200


def test_a_model_may_be_allowed_longer_batches(start: Callable[..., Served], tmp_path: Path) -> None:
    write_model(tmp_path, "slow", PLUS.replace("return", "import time; time.sleep(1.5)\n    return"))
    (tmp_path / "slow" / "model.yaml").write_text("execute_limit_seconds: 60\nwarmup: false\n")
    served = start("--execute-limit-seconds", "1", tmp_path)
    assert outputs(served.infer("slow", [[1, 2, 3, 4]])) == [2, 3, 4, 5]


def test_a_model_that_never_finishes_loading_keeps_no_other_from_running(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path, "endless", LOADS_FOREVER)
    write_model(tmp_path, "plus", PLUS)
    served = start(
        "--control-mode", "explicit", "--load-model", "plus", "--load-limit-seconds", "3", tmp_path
    )
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(served.ask, "/v2/repository/models/endless/load", {})
        answered = 0
        while not loading.done():
            assert outputs(served.infer("plus", [[1, 2, 3, 4]])) == [2, 3, 4, 5]
            answered += 1
        status, answer = loading.result()
    assert status == 409
    assert "took more than 3 s to load" in answer["error"]
    assert answered > 10
    assert outputs(served.infer("plus", [[1, 2, 3, 4]])) == [2, 3, 4, 5]


def test_a_model_that_crashes_while_loading_disturbs_no_other(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path, "crashes", CRASHES)
    for name in ("plus", "more", "many"):
        write_model(tmp_path, name, PLUS)
    served = start(tmp_path)
    rows = {row["name"]: row for row in served.ask("/repository", base=served.management)[1]}
    assert "while it was loading" in rows["crashes"]["reason"]
    for name in ("plus", "more", "many"):
        assert outputs(served.infer(name, [[1, 2, 3, 4]])) == [2, 3, 4, 5]


def test_a_model_that_cannot_be_loaded_again_is_unavailable_with_its_reason(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path, "once", LOADS_ONCE)
    write_model(tmp_path, "plus", PLUS)
    served = start(tmp_path)
    assert served.ask("/v2/health/ready")[0] == 200
    for pid in served.children():
        os.kill(pid, signal.SIGKILL)
    served.read_until("once: cannot be served")
    assert served.ask("/v2/health/ready")[0] == 503
    status, answer = served.infer("once", [[1, 2, 3, 4]])
    assert status == 503
    assert "only once" in answer["error"]
    assert outputs(served.infer("plus", [[1, 2, 3, 4]])) == [2, 3, 4, 5]


def test_a_model_that_ends_its_worker_keeps_no_other_from_being_served(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(
        tmp_path, "exits", "import os\n" + PLUS.replace("return", "if x[0, 0] == 99: os._exit(3)\n    return")
    )
    write_model(tmp_path, "plus", PLUS)
    served = start(tmp_path)
    for _ in range(4):
        assert served.infer("exits", [[99, 0, 0, 0]])[0] == 503
        assert outputs(served.infer("plus", [[1, 2, 3, 4]])) == [2, 3, 4, 5]


def test_a_model_is_loaded_behind_a_long_batch_of_another(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(
        tmp_path, "slow", "import time\n" + PLUS.replace("return", "time.sleep(float(x[0, 0]))\n    return")
    )
    write_model(tmp_path, "plus", PLUS)
    (tmp_path / "plus" / "model.yaml").write_text("warmup: false\n")
    served = start(
        "--control-mode", "explicit", "--load-model", "slow", "--load-limit-seconds", "2", tmp_path
    )
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(served.infer, "slow", [[4, 0, 0, 0]])
        time.sleep(0.5)
        assert served.ask("/v2/repository/models/plus/load", {})[0] == 200
        assert not slow.done(), "it was loaded meanwhile"
        assert outputs(slow.result()) == [5, 1, 1, 1]


@pytest.mark.parametrize("where", ["import", "batch"])
def test_an_exception_that_is_no_exception_costs_only_its_own(
    start: Callable[..., Served], tmp_path: Path, where: str
) -> None:
    cancelled = "import asyncio\n" + PLUS.replace(
        "return", "raise asyncio.CancelledError('enough')\n    return"
    )
    if where == "import":
        cancelled += "raise asyncio.CancelledError('enough')\n"
    write_model(tmp_path, "cancelled", cancelled)
    (tmp_path / "cancelled" / "model.yaml").write_text("warmup: false\n")
    write_model(tmp_path, "plus", PLUS)
    served = start(tmp_path)
    workers = served.children()
    status, answer = served.infer("cancelled", [[1, 2, 3, 4]])
    assert status == (503 if where == "import" else 500)
    assert "enough" in answer["error"]
    assert outputs(served.infer("plus", [[1, 2, 3, 4]])) == [2, 3, 4, 5]
    assert served.children() == workers


def living_members(group: int) -> list[str]:
    """What runs in a process group; one that nobody has reaped yet does not."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, its_group = fields.split()[:3]
        if int(its_group) == group and state != "Z":
            living.append(name)
    return living


def test_what_a_worker_leaves_behind_keeps_nobody_waiting(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    forks = (
        "import os, time\nif os.fork() == 0:\n    os.closerange(0, 3)\n    time.sleep(20)\n    os._exit(0)\n"
    )
    write_model(tmp_path, "forks", forks + PLUS.replace("return", "time.sleep(float(x[0, 0]))\n    return"))
    served = start(tmp_path)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.infer, "forks", [[1, 0, 0, 0]])
        time.sleep(0.3)
        (worker,) = served.children()
        began = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        assert outputs(answer.result()) == [2, 1, 1, 1], "retried at once"
        assert time.monotonic() - began < 30
    end = time.monotonic() + 30
    while members := living_members(worker):
        assert time.monotonic() < end, members


def test_parameters_that_fit_nowhere_are_refused_by_size(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path, "plus", PLUS)
    served = start(tmp_path)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    body = {"inputs": [tensor], "parameters": {"note": "x" * 70_000}}
    status, answer = served.ask("/v2/models/plus/infer", body)
    assert status == 400
    assert "parameters have 70004 bytes" in answer["error"]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_cancelled_expired_or_killed_each_request_is_answered_once_with_its_own_rows(
    start: Callable[..., Served], tmp_path: Path, seed: int
) -> None:
    """Frames on one connection, so that a second answer to an exchange would be seen."""
    dice = random.Random(seed)
    write_model(
        tmp_path,
        "plus",
        "import time\n" + PLUS.replace("return", "time.sleep(float(x.max() % 7) / 2000)\n    return"),
    )
    (tmp_path / "plus" / "model.yaml").write_text(
        f"max_batch_size: 8\nworker: {dice.choice(['shared', 'own'])}\ninstances: {dice.choice([1, 2])}\n"
    )
    served = start("--reactors", str(dice.choice([1, 2])), tmp_path)
    host, port = served.url.removeprefix("http://").split(":")
    sent: dict[int, np.ndarray] = {}
    with_timeout, cancelled = set(), set()
    answers: Counter[int] = Counter()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        assembler = FrameAssembler()

        def receive(wait_seconds: float) -> None:
            connection.settimeout(wait_seconds)
            try:
                data = connection.recv(1 << 16)
            except (TimeoutError, BlockingIOError):
                return
            finally:
                connection.settimeout(60)
            assert data, "the server closed the connection"
            for frame in assembler.feed(memoryview(data)):
                exchange, answer = exchange_of(frame), decode_answer(frame)
                if isinstance(answer, Credit):
                    continue  # it answers nothing, also where it names a cancelled request
                answers[exchange] += 1
                if isinstance(answer, KingpoleError):
                    allowed = {"UNAVAILABLE"} | ({"DEADLINE_EXCEEDED"} if exchange in with_timeout else set())
                    assert answer.code in allowed, answer
                else:
                    np.testing.assert_array_equal(answer.outputs["y"], sent[exchange] + 1)

        def owed() -> set[int]:
            return sent.keys() - answers.keys() - cancelled

        for exchange in range(1, 301):
            rows = dice.randint(1, 3)
            values = np.full((rows, 4), exchange, np.float32)
            timeout_us = dice.choice([None, None, None, 1, 2_000, 20_000])
            request = InferRequest("plus", {"x": values}, timeout_us=timeout_us)
            sent[exchange] = values
            if timeout_us:
                with_timeout.add(exchange)
            connection.sendall(b"".join(request.buffers(exchange)))
            if dice.random() < 0.1:
                cancelled.add(exchange)
                connection.sendall(b"".join(encode_cancel(exchange)))
            if dice.random() < 0.02:
                pids = served.children()
                if pids:
                    os.kill(dice.choice(pids), signal.SIGKILL)
            while len(owed()) > dice.choice([0, 20, 100]):
                receive(30)
        end = time.monotonic() + 60
        while owed() and time.monotonic() < end:
            receive(1)
        receive(0.2)
        assert not owed(), "unanswered"
        assert max(answers.values()) == 1, "answered twice"
    end = time.monotonic() + 30
    while time.monotonic() < end:
        text = served.ask("/metrics", base=served.management)[1]
        if re.search(r'^kingpole_in_flight\{.*model="plus".*\} 0$', text, re.MULTILINE):
            break
    else:
        raise AssertionError("something stayed in flight")
