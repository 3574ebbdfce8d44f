"""What real GraphPipe clients sent, and faulty bodies beside it, sent to the server once more.

The recordings are not part of the project: `KINGPOLE_GRAPHPIPE_RECORDINGS` names their folder, with files
`*.req.bin` and `*.resp.bin`. Some of them are among the vectors in `protocol/vectors`, which always run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flatbuffers.table import Table
from running import Running, serving
from wire import Answer, chunk, connect, graphpipe_request, head, post, read_answer

RECORDINGS = os.environ.get("KINGPOLE_GRAPHPIPE_RECORDINGS", "")
needs_recordings = pytest.mark.skipif(
    not Path(RECORDINGS, "py_metadata.req.bin").is_file(),
    reason="KINGPOLE_GRAPHPIPE_RECORDINGS names no folder with recorded bodies",
)

MODELS = {
    "floats": [("FP32", "[-1, -1]")],
    "two": [("FP32", "[-1, -1]"), ("FP32", "[-1, -1]")],
    "pair": [("FP32", "[-1, -1]"), ("BYTES", "[-1]")],
    "scalar": [("FP64", "[]")],
    "longs": [("INT64", "[-1]")],
    "octets": [("UINT8", "[-1]")],
    "texts": [("BYTES", "[-1]")],
}
CONFIG = """
import numpy as np
INPUTS = [("x", "FP32", [-1, 2])]
OUTPUTS = [("y", "BYTES", [1])]
def infer(x, parameters):
    return np.array([parameters.get("config", "nothing")], dtype=object)
"""

ANSWERED = {
    "go_infer_f32_2x2": "floats",
    "go_infer_multi_f32_string_config": "pair",
    "go_infer_string_2": "texts",
    "java_infer_f32_2x2": "floats",
    "neg_minimal_ok_no_optional_vectors": "floats",
    "neg_empty_input_name": "floats",
    "neg_empty_output_name": "floats",
    "neg_names_shorter_than_tensors": "two",
    "py_infer_f32_2x2": "floats",
    "py_infer_f32_2x2_named": "floats",
    "py_infer_f32_300x2_chunked": "floats",
    "py_infer_f32_empty_0x2": "floats",
    "py_infer_f64_scalar": "scalar",
    "py_infer_i64_2": "longs",
    "py_infer_multi_f32_string_config": "pair",
    "py_infer_string_2": "texts",
    "py_infer_u8_3": "octets",
}
"""Bodies that are answered with what they brought, and the model that takes them."""

REFUSED = {
    "neg_data_absent": "input 0",
    "neg_dtype_null": "Null",
    "neg_empty_body": "malformed GraphPipe body",
    "neg_garbage_text": "malformed GraphPipe body",
    "neg_negative_dim": "-1",
    "neg_no_tensors_vector": "missing",
    "neg_req_type_none": "req_type is 0",
    "neg_shape_data_mismatch": "20",
    "neg_truncated_half": "malformed GraphPipe body",
    "neg_unknown_input": "'nope'",
    "neg_unknown_output": "'output9'",
}
"""Bodies that are refused, and a word of the reason."""

Tensor = tuple[int, list[int], Any]


def tensors(body: bytes, slot: int, *, request: bool) -> list[Tensor]:
    """Type, shape and content of the tensors of a body, read without demanding alignment."""
    root = Table(body, int.from_bytes(body[:4], "little"))
    if request:
        root = Table(body, root.Indirect(root.Offset(6) + root.Pos))
    at = root.Offset(slot)
    found = []
    for index in range(root.VectorLen(at) if at else 0):
        each = Table(body, root.Indirect(root.Vector(at) + 4 * index))
        kind = body[each.Offset(4) + each.Pos]
        shape_at, data_at, texts_at = each.Offset(6), each.Offset(8), each.Offset(10)
        start = each.Vector(shape_at)
        shape = np.frombuffer(body[start : start + 8 * each.VectorLen(shape_at)], "<i8").tolist()
        content: Any
        if kind == 12:
            texts = range(each.VectorLen(texts_at)) if texts_at else range(0)
            content = [bytes(each.String(each.Vector(texts_at) + 4 * text)) for text in texts]
        else:
            start = each.Vector(data_at) if data_at else 0
            content = body[start : start + each.VectorLen(data_at)] if data_at else b""
        found.append((kind, shape, content))
    return found


def answered(answer: Answer) -> list[Tensor]:
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    return tensors(answer.body, 4, request=False)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A server with a model for each form of recorded body."""
    repository = tmp_path_factory.mktemp("pipe")
    for name, declared in MODELS.items():
        rows = {
            side: [f"  - {{name: {side}{index}, datatype: {datatype}, shape: {shape}}}"
                   for index, (datatype, shape) in enumerate(declared)]
            for side in ("input", "output")
        }  # fmt: skip
        (repository / name).mkdir()
        (repository / name / "model.yaml").write_text(
            "\n".join(["backend: identity", "max_batch_size: 0", "inputs:", *rows["input"],
                       "outputs:", *rows["output"], ""])
        )  # fmt: skip
    (repository / "told").mkdir()
    (repository / "told" / "model.py").write_text(CONFIG)
    running: Running
    with serving(repository, "floats") as running:
        yield running.host, running.port


def recorded(name: str) -> bytes:
    return Path(RECORDINGS, f"{name}.req.bin").read_bytes()


@needs_recordings
def test_every_recorded_request_is_tried() -> None:
    found = {each.name.removesuffix(".req.bin") for each in Path(RECORDINGS).glob("*.req.bin")}
    assert found == {*ANSWERED, *REFUSED, "py_metadata"}


@needs_recordings
@pytest.mark.parametrize("name", ANSWERED)
def test_a_recorded_request_is_answered_with_what_it_brought(pipe: tuple[str, int], name: str) -> None:
    body = recorded(name)
    expected = tensors(body, 8, request=True)
    if name == "neg_empty_output_name":
        expected = expected[:1]
    assert answered(post(pipe, f"/{ANSWERED[name]}", body)) == expected
    reference = Path(RECORDINGS, f"{name}.resp.bin")
    if reference.exists() and name == "py_infer_f32_2x2":
        assert tensors(reference.read_bytes(), 4, request=False) == expected


@needs_recordings
@pytest.mark.parametrize("name", REFUSED)
def test_a_recorded_fault_is_refused_with_a_text(pipe: tuple[str, int], name: str) -> None:
    answer = post(pipe, "/floats", recorded(name))
    assert answer.status == 400, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert REFUSED[name] in answer.text


@needs_recordings
def test_metadata_is_asked_for_in_the_clients_words(pipe: tuple[str, int]) -> None:
    answer = post(pipe, "/pair", recorded("py_metadata"))
    assert answer.status == 200
    for words in (b"kingpole", b"pair", b"input1", b"output1"):
        assert words in answer.body


def test_any_path_is_the_default_model(pipe: tuple[str, int]) -> None:
    values = np.arange(4, dtype=np.float32)
    body = graphpipe_request(values.tobytes(), (2, 2))
    for path in ("/", "/predict/here", "/a/b/c/d", "/floats?x=1"):
        assert answered(post(pipe, path, body)) == [(10, [2, 2], values.tobytes())], path


def test_the_config_reaches_the_model_as_a_parameter(pipe: tuple[str, int]) -> None:
    body = graphpipe_request(bytes(16), (2, 2), config='{"k":1}')
    assert answered(post(pipe, "/told", body)) == [(12, [1], [b'{"k":1}'])]
    assert answered(post(pipe, "/told", graphpipe_request(bytes(16), (2, 2)))) == [(12, [1], [b"nothing"])]


def test_a_body_may_come_in_chunks_and_after_asking(pipe: tuple[str, int]) -> None:
    values = np.arange(4, dtype=np.float32).tobytes()
    body = graphpipe_request(values, (2, 2))
    with connect(pipe) as opened:
        opened.sendall(head("/", {"Transfer-Encoding": "chunked"}))
        for start in range(0, len(body), 7):
            opened.sendall(chunk(body[start : start + 7]))
        opened.sendall(b"0\r\n\r\n")
        assert answered(read_answer(opened)) == [(10, [2, 2], values)]
    with connect(pipe) as opened:
        opened.sendall(head("/", {"Expect": "100-continue", "Content-Length": str(len(body))}))
        interim = opened.recv(64)
        assert interim.startswith(b"HTTP/1.1 100")
        opened.sendall(body)
        assert answered(read_answer(opened)) == [(10, [2, 2], values)]


@pytest.mark.parametrize("shift", range(1, 8))
def test_a_payload_may_lie_anywhere(pipe: tuple[str, int], shift: int) -> None:
    values = np.arange(4, dtype=np.float32).tobytes()
    body = bytearray(graphpipe_request(values, (2, 2)))
    # Everything but the root offset is relative, so that bytes before the root move it all.
    moved = (int.from_bytes(body[:4], "little") + shift).to_bytes(4, "little") + bytes(shift) + body[4:]
    assert answered(post(pipe, "/floats", bytes(moved))) == [(10, [2, 2], values)]
