"""Models that keep sequences, through the whole server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_process import Served, needs_core, start, write_model

__all__ = ["start"]
pytestmark = needs_core

# Remembers by itself, under the sequence's id, as it is told by the controls.
REMEMBERS = """
import numpy as np
INPUTS = [("x", "FP32", [-1, 1]), ("START", "INT32", [-1, 1]), ("END", "INT32", [-1, 1]),
          ("READY", "BOOL", [-1, 1]), ("CORRID", "UINT64", [-1, 1])]
OUTPUTS = [("sum", "FP32", [-1, 1]), ("seen", "INT64", [-1, 5])]
MAX_BATCH_SIZE = 4
sums = {}
def execute(inputs):
    rows = []
    for x, start, end, ready, id in zip(*(inputs[n][:, 0] for n in ("x", "START", "END", "READY", "CORRID"))):
        if ready:
            sums[id] = x if start else sums[id] + x
        rows.append((sums[id] if ready else 0, (len(inputs["x"]), start, end, ready, id)))
        if end:
            del sums[id]
    return {"sum": np.float32([[each] for each, _ in rows]), "seen": np.int64([each for _, each in rows])}
"""
CONTROLS = """
sequence:
  strategy: %s
  max_idle_us: %d
  controls:
    - {input: START, kind: start}
    - {input: END, kind: end}
    - {input: READY, kind: ready}
    - {input: CORRID, kind: correlation}
"""
# The server remembers: a state goes in, the next comes out.
REMEMBERED = """
import numpy as np
INPUTS = [("x", "FP32", [-1, 1]), ("before", "FP32", [-1, 2])]
OUTPUTS = [("sum", "FP32", [-1, 1]), ("after", "FP32", [-1, 2])]
MAX_BATCH_SIZE = 8
def infer(x, before):
    after = before + np.concatenate([x, np.ones_like(x)], 1)
    return after[:, :1], after
"""
STATES = """
sequence:
  strategy: oldest
  states: [{input: before, output: after, initial: start.bin}]
"""


def write_remembers(repository: Path, strategy: str = "oldest", max_idle_us: int = 60_000_000) -> None:
    write_model(repository, "counter", REMEMBERS)
    (repository / "counter" / "model.yaml").write_text(CONTROLS % (strategy, max_idle_us))


def write_remembered(repository: Path) -> None:
    write_model(repository, "counter", REMEMBERED)
    (repository / "counter" / "model.yaml").write_text(STATES)
    (repository / "counter" / "start.bin").write_bytes(np.float32([100, 0]).tobytes())


def step(served: Served, key: int | str | None, x: float, start: bool = False, end: bool = False) -> Any:
    parameters = {} if key is None else {"sequence_id": key, "sequence_start": start, "sequence_end": end}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}
    return served.ask("/v2/models/counter/infer", {"inputs": [tensor], "parameters": parameters})


def total(answer: tuple[int, Any]) -> float:
    status, body = answer
    assert status == 200, body
    return body["outputs"][0]["data"][0]


@pytest.mark.parametrize("strategy", ["direct", "oldest"])
def test_interleaved_sequences_never_see_each_other(
    start: Callable[..., Served], tmp_path: Path, strategy: str
) -> None:
    write_remembers(tmp_path, strategy)
    served = start("--reactors", "2", tmp_path)

    def run(key: int) -> list[float]:
        return [total(step(served, key, key, start=turn == 0, end=turn == 9)) for turn in range(10)]

    # Twice as many as have room at once with the direct strategy.
    with ThreadPoolExecutor(8) as pool:
        for key, sums in zip(range(1, 9), pool.map(run, range(1, 9)), strict=True):
            assert sums == [key * (turn + 1) for turn in range(10)]


def test_the_direct_strategy_gives_each_sequence_a_row_and_says_which_are_empty(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_remembers(tmp_path, "direct")
    served = start(tmp_path)
    assert total(step(served, 5, 1, start=True)) == 1
    status, body = step(served, 7, 2, start=True)
    assert status == 200
    rows, started, ended, ready, key = body["outputs"][1]["data"]
    assert (rows, started, ended, ready, key) == (2, 1, 0, 1, 7), "the second row; the first one waits, empty"


def test_what_the_protocol_forbids_is_named(start: Callable[..., Served], tmp_path: Path) -> None:
    write_remembers(tmp_path)
    served = start(tmp_path)
    for answer, words in (
        (step(served, None, 1), "must specify a non-zero or non-empty correlation ID"),
        (step(served, 3, 1), "must specify the START flag"),
        (step(served, "three", 1, start=True), "input 'CORRID' is UINT64"),
        (step(served, 0, 1, start=True), "sequence_id"),
        (step(served, -1, 1, start=True), "sequence_id"),
        (step(served, 1.5, 1, start=True), "sequence_id"),
    ):
        assert answer[0] == 400, answer
        assert words in answer[1]["error"]
    assert total(step(served, 3, 1, start=True, end=True)) == 1
    assert step(served, 3, 1)[0] == 400, "it has ended"
    metadata = served.ask("/v2/models/counter")[1]
    assert [each["name"] for each in metadata["inputs"]] == ["x"], "controls are ours"


def test_an_idle_sequence_is_forgotten(start: Callable[..., Served], tmp_path: Path) -> None:
    write_remembers(tmp_path, "direct", max_idle_us=1000)
    served = start(tmp_path)
    for key in range(1, 20):  # more than there are rows
        assert total(step(served, key, key, start=True)) == key


def test_what_only_the_model_remembered_is_lost_with_its_worker_and_said_so(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_remembers(tmp_path)
    served = start(tmp_path)
    assert total(step(served, 1, 1, start=True)) == 1
    for pid in served.children():
        os.kill(pid, signal.SIGKILL)
    served.read_until("kingpole: the worker")
    status, body = step(served, 1, 1)
    assert status == 409
    assert "start it again" in body["error"]
    assert total(step(served, 1, 4, start=True)) == 4


def test_what_the_server_remembers_survives_a_worker(start: Callable[..., Served], tmp_path: Path) -> None:
    write_remembered(tmp_path)
    served = start(tmp_path)
    assert total(step(served, "a", 1, start=True)) == 101, "begins with the initial state"
    for pid in served.children():
        os.kill(pid, signal.SIGKILL)
    assert total(step(served, "a", 2)) == 103
    with ThreadPoolExecutor(8) as pool:

        def run(key: int) -> list[float]:
            return [total(step(served, key, key, start=turn == 0)) for turn in range(10)]

        for key, sums in zip(range(1, 9), pool.map(run, range(1, 9)), strict=True):
            assert sums == [100 + key * (turn + 1) for turn in range(10)]
    assert total(step(served, "a", 3)) == 106


def test_one_clients_oversized_parameters_never_touch_anothers_sequence(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    write_remembers(tmp_path)
    (tmp_path / "counter" / "model.yaml").write_text(
        "max_queue_delay_us: 300000\n" + CONTROLS % ("oldest", 10**7)
    )
    served = start(tmp_path)
    assert total(step(served, 1, 1, start=True)) == 1
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    parameters = {"sequence_id": 2, "sequence_start": True, "note": "x" * 70_000}
    with ThreadPoolExecutor() as pool:
        innocent = pool.submit(step, served, 1, 1)
        guilty = pool.submit(
            served.ask, "/v2/models/counter/infer", {"inputs": [tensor], "parameters": parameters}
        )
        assert total(innocent.result()) == 2
        assert guilty.result()[0] == 400
    assert total(step(served, 1, 1)) == 3


def test_a_step_that_waits_behind_a_failed_one_is_answered_with_the_reason(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    source = REMEMBERS.replace(
        "    rows = []",
        "    if inputs['x'][0, 0] == 99:\n        import time; time.sleep(1); 1 / 0\n    rows = []",
    )
    write_model(tmp_path, "counter", source)
    (tmp_path / "counter" / "model.yaml").write_text(CONTROLS % ("oldest", 60_000_000))
    served = start(tmp_path)
    assert total(step(served, 1, 1, start=True)) == 1
    with ThreadPoolExecutor() as pool:
        failing = pool.submit(step, served, 1, 99)
        time.sleep(0.3)
        behind = pool.submit(step, served, 1, 5)
        time.sleep(0.2)
        again = pool.submit(step, served, 1, 7, start=True)
        assert failing.result()[0] == 500
        status, body = behind.result()
        assert (status, "the model failed in the middle of it" in body["error"]) == (409, True), body
        assert total(again.result()) == 7
    assert total(step(served, 1, 1)) == 8


def test_a_state_of_the_wrong_size_is_named_at_load(start: Callable[..., Served], tmp_path: Path) -> None:
    write_remembered(tmp_path)
    (tmp_path / "counter" / "start.bin").write_bytes(b"123")
    served = start(tmp_path)
    rows = {row["name"]: row for row in served.ask("/repository", base=served.management)[1]}
    assert "expected 8 bytes for [1,2], got 3" in rows["counter"]["reason"]


SILERO = Path(__file__).parents[2] / ".cache/models/silero-vad/silero_vad/data/silero_vad.onnx"
RATE_HZ, FRAME, CONTEXT = 16_000, 512, 64


def voice(seconds: float) -> np.ndarray:
    """Bursts of a buzz through two resonances, between silences: near enough to vowels for a detector."""
    time_s = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    pitch = np.sin(2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 3 * time_s)) / RATE_HZ)
    buzz = np.sign(pitch) * np.abs(pitch) ** 0.2
    spectrum, hz = np.fft.rfft(buzz), np.fft.rfftfreq(len(buzz), 1 / RATE_HZ)
    spectrum *= sum(np.exp(-(((hz - at) / 90) ** 2)) for at in (700, 1220, 2600))
    sound = np.fft.irfft(spectrum, len(buzz))
    loud = (np.sin(2 * np.pi * 1.5 * time_s) > 0) * 0.4 / np.abs(sound).max()
    return (sound * loud).astype(np.float32)


def frames_of(sound: np.ndarray) -> list[np.ndarray]:
    """Frames as the detector takes them: each with the end of the one before in front."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    starts = range(0, len(sound) - FRAME + 1, FRAME)
    return [padded[None, at : at + CONTEXT + FRAME] for at in starts]


@pytest.mark.framework("onnx")
@pytest.mark.skipif(not SILERO.exists(), reason="silero-vad is not there: make setup")
def test_streamed_speech_gives_the_same_frames_as_the_model_by_itself(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    version = tmp_path / "vad" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(SILERO.read_bytes())
    (tmp_path / "vad" / "model.yaml").write_text(
        "sequence:\n  states: [{input: state, output: stateN, shape: [2, 1, 128]}]\n"
    )
    served = start(tmp_path)
    sounds = {"a": voice(2.0), "b": voice(2.5)[::-1].copy(), "c": np.zeros(RATE_HZ, np.float32)}
    session = onnxruntime.InferenceSession(str(SILERO))
    rate = np.array(RATE_HZ, np.int64)

    def by_itself(frames: list[np.ndarray]) -> list[float]:
        state, found = np.zeros((2, 1, 128), np.float32), []
        for frame in frames:
            speech, state = session.run(None, {"input": frame, "state": state, "sr": rate})
            found.append(float(speech[0, 0]))
        return found

    def streamed(name: str) -> list[float]:
        found, frames = [], frames_of(sounds[name])
        for position, frame in enumerate(frames):
            place = {
                "sequence_id": name,
                "sequence_start": position == 0,
                "sequence_end": position == len(frames) - 1,
            }
            samples = {"name": "input", "datatype": "FP32", "shape": frame.shape, "data": frame[0].tolist()}
            hz = {"name": "sr", "datatype": "INT64", "shape": [], "data": [RATE_HZ]}
            body = {"inputs": [samples, hz], "parameters": place}
            status, answer = served.ask("/v2/models/vad/infer", body)
            assert status == 200, answer
            found += answer["outputs"][0]["data"]
        return found

    with ThreadPoolExecutor() as pool:
        for name, found in zip(sounds, pool.map(streamed, sounds), strict=True):
            np.testing.assert_allclose(found, by_itself(frames_of(sounds[name])), atol=1e-5)
    first_frames = [by_itself([frame])[0] for frame in frames_of(sounds["a"])]
    assert np.abs(np.array(first_frames) - by_itself(frames_of(sounds["a"]))).max() > 0.1, "the state matters"
