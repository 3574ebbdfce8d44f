"""One mistake, one code: REST, gRPC and the frame refuse the same thing alike, and with the same words.

The rows are those of the table in docs/protocols.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
import served
from running import Running, serving, write_repository
from wire import FRAME, as_json, frame_request, json_request, post, protobuf_request
from wire import field as protobuf_field

INFER = "/inference.GRPCInferenceService/ModelInfer"
ONE = served.rows(1)
RAISING = """
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    raise ValueError("no answers on Tuesdays")
"""
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
}
"""Which HTTP status stands for a code."""


@dataclass(frozen=True)
class Row:
    """A mistake, made in each protocol."""

    says: str
    code: grpc.StatusCode
    words: tuple[str, ...]
    model: str = served.MLP
    version: str | None = None
    x: Any = field(default_factory=lambda: ONE)
    name: str = "x"
    output: str = ""
    timeout_us: int = 0


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL
DATATYPES = {"float32": "FP32", "int32": "INT32", "float64": "FP64"}

ROWS = [
    Row("an unknown model", NOT_FOUND, ("Request for unknown model: 'nobody' is not found",), model="nobody"),
    Row("an unknown version", NOT_FOUND, ("'mlp' version '7' is not found",), version="7"),
    Row("a version that is text", NOT_FOUND, ("version 'abc'",), version="abc"),
    Row("a negative version", NOT_FOUND, ("version '-1'",), version="-1"),
    Row("another datatype", INVALID, ("'x'", "INT32", "FP32"), x=ONE.astype(np.int32)),
    Row("another rank", INVALID, ("'x'", "[4]", "[-1,4]"), x=ONE[0]),
    Row("another size", INVALID, ("'x'", "[1,5]", "[-1,4]"), x=np.zeros((1, 5), np.float32)),
    Row("too many rows", INVALID, ("'x'", "33 rows", "1 to 32"), x=served.rows(33)),
    Row("no rows", INVALID, ("'x'", "0 rows", "1 to 32"), x=np.zeros((0, 4), np.float32)),
    Row("an unknown input", INVALID, ("'z'", "'x'"), name="z"),
    Row("an unknown output", INVALID, ("'z'", "'y'"), output="z"),
    Row("a deadline that has passed", grpc.StatusCode.DEADLINE_EXCEEDED, ("deadline",), timeout_us=1,
        model=served.WORKER_MLP),
    Row("a model that is not loaded", UNAVAILABLE, ("'idle' that is not ready", "not loaded"), model="idle"),
    Row("a model that cannot be loaded", UNAVAILABLE, ("'broken' that is not ready", "no weights"),
        model="broken"),
    Row("a decoupled model asked for one response", grpc.StatusCode.UNIMPLEMENTED, ("'count'",),
        model=served.COUNT, name="count", x=np.array([1], np.int32)),
    Row("a model that raised", INTERNAL, ("no answers on Tuesdays",), model="raising"),
]  # fmt: skip


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with models that are not there, cannot be, or raise."""
    repository = write_repository(tmp_path_factory.mktemp("faulty"), served)
    for name, source in (
        ("raising", RAISING),
        ("idle", RAISING),
        ("broken", "raise OSError('no weights')\n"),
    ):
        (repository / name).mkdir()
        (repository / name / "model.py").write_text(source)
    loaded = [
        each
        for name in (served.MLP, served.WORKER_MLP, served.COUNT, "raising")
        for each in ("--load-model", name)
    ]
    with serving(repository, served.MLP, "--control-mode", "explicit", *loaded) as running:
        assert post((running.host, running.port), "/v2/repository/models/broken/load", b"").status == 409
        yield running


def over_rest(running: Running, row: Row) -> tuple[int, str]:
    body = json_request(row.x, name=row.name, datatype=DATATYPES[str(row.x.dtype)])
    if row.output:
        body["outputs"] = [{"name": row.output}]
    if row.timeout_us:
        body["parameters"] = {"timeout": row.timeout_us}
    version = f"/versions/{row.version}" if row.version else ""
    answer = post((running.host, running.port), f"/v2/models/{row.model}{version}/infer", as_json(body))
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1"
    return answer.status, answer.text


def over_grpc(running: Running, row: Row) -> tuple[grpc.StatusCode, str]:
    more = protobuf_field(6, protobuf_field(1, row.output)) if row.output else b""
    if row.timeout_us:
        value = protobuf_field(2, row.timeout_us)
        more += protobuf_field(4, protobuf_field(1, "timeout") + protobuf_field(2, value))
    message = protobuf_request(
        row.x, model=row.model, version=row.version or "", name=row.name,
        datatype=DATATYPES[str(row.x.dtype)], more=more,
    )  # fmt: skip
    with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(INFER)(message, timeout=30)
    return raised.value.code(), str(raised.value.details())


def over_frame(running: Running, row: Row) -> tuple[int, str]:
    body = frame_request(
        row.x, model=row.model, name=row.name, version=row.version,
        outputs=(row.output,) if row.output else (),
    )  # fmt: skip
    headers = {"Content-Type": FRAME}
    if row.timeout_us:
        headers["Kingpole-Timeout-Us"] = str(row.timeout_us)
    answer = post((running.host, running.port), "/v1/infer", body, headers)
    return answer.status, answer.text


@pytest.mark.parametrize("row", [pytest.param(row, id=row.says) for row in ROWS])
def test_a_mistake_is_refused_alike_in_every_protocol(faulty: Running, row: Row) -> None:
    rest, by_grpc, frame = (ask(faulty, row) for ask in (over_rest, over_grpc, over_frame))
    assert (rest[0], by_grpc[0], frame[0]) == (STATUS[row.code], row.code, STATUS[row.code])
    for words in row.words:
        for _, text in (rest, by_grpc, frame):
            assert words in text, text
