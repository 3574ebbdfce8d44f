"""The table of statuses beyond inferences: each row is asked over REST and over gRPC, and refused alike.

`test_bad_alike` has the rows of inferences, with the frame. Triton's own answers differ where
docs/protocols.md says so.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import grpc
import kingpole_client
import pytest
import served
from running import Running, serving, write_repository
from wire import Answer, connect, field, head, post, protobuf_request, read_answer, varint

SERVICE = "/inference.GRPCInferenceService/"
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
UNAVAILABLE, UNIMPLEMENTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED
STATUS = {
    INVALID: 400,
    NOT_FOUND: 404,
    UNAVAILABLE: 503,
    UNIMPLEMENTED: 501,
    grpc.StatusCode.ALREADY_EXISTS: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}
"""Which HTTP status stands for a code."""

GATED = """
import pathlib, time
INPUTS = [("x", "FP32", [-1, 4])]
OUTPUTS = [("y", "FP32", [-1, 4])]
def infer(x):
    deadline = time.monotonic() + 30
    while x.any() and not pathlib.Path({gate!r}).exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # the gate is a file: a model has nothing else in common with its test
    return x
"""
"""A model that answers once a file is there; not when it is warmed up, which is with zeros."""

NARROW = """
backend: identity
inputs:
  - {name: uint8, datatype: UINT8, shape: [1], optional: true}
  - {name: int8, datatype: INT8, shape: [1], optional: true}
outputs:
  - {name: uint8_out, datatype: UINT8, shape: [1]}
  - {name: int8_out, datatype: INT8, shape: [1]}
"""

UNKNOWN = "Request for unknown model: 'nobody' is not found"


@dataclass(frozen=True)
class Row:
    """A call that is refused, as each protocol has it; a path without a body is a GET."""

    says: str
    path: str
    method: str
    message: bytes
    code: grpc.StatusCode
    words: tuple[str, ...]
    body: object = None


def setting(name: str, *values: str) -> bytes:
    """A setting of a trace."""
    value = b"".join(field(1, each) for each in values)
    return field(1, field(1, name) + field(2, value))


def log_setting(name: str, value: bytes) -> bytes:
    return field(1, field(1, name) + field(2, value))


def load_parameter(name: str, value: bytes) -> bytes:
    return field(3, field(1, name) + field(2, value))


def register(name: str, key: str, offset: int, byte_size: int) -> bytes:
    return field(1, name) + field(2, key) + field(3, offset) + field(4, byte_size)


def of_model(says: str, action: str, method: str) -> list[Row]:
    """What is asked of a model, of one that is not there and of versions that are not."""
    rows = [Row(f"{says} of an unknown model", f"/v2/models/nobody{action}", method, field(1, "nobody"),
                NOT_FOUND, (UNKNOWN,))]  # fmt: skip
    for version in ("7", "abc", "-1"):
        path = f"/v2/models/{served.MLP}/versions/{version}{action}"
        message = field(1, served.MLP) + field(2, version)
        words = (f"version '{version}'",)
        rows.append(Row(f"{says} of a version that is {version}", path, method, message, NOT_FOUND, words))
    return rows


def narrow(says: str, datatype: str, number: int, contents: bytes) -> Row:
    """A number for a datatype that it does not fit, in JSON and in the field that all integers share."""
    name = datatype.lower()
    tensor = field(1, name) + field(2, datatype) + field(3, b"\1") + field(5, contents)
    given = {"name": name, "datatype": datatype, "shape": [1], "data": [number]}
    message = field(1, "narrow") + field(5, tensor)
    words = (f"'{name}'", str(number))
    return Row(says, "/v2/models/narrow/infer", "ModelInfer", message, INVALID, words, {"inputs": [given]})


REGION = "/v2/systemsharedmemory/region"
REPOSITORY = "/v2/repository"

# Of a server that loads what it finds at its start.
ROWS = [
    *of_model("metadata", "", "ModelMetadata"),
    *of_model("the configuration", "/config", "ModelConfig"),
    *of_model("statistics", "/stats", "ModelStatistics"),
    *of_model("readiness", "/ready", "ModelReady"),
    Row("trace settings of an unknown model", "/v2/models/nobody/trace/setting", "TraceSetting",
        field(2, "nobody"), NOT_FOUND, (UNKNOWN,)),
    Row("a load where models are not loaded on request", f"{REPOSITORY}/models/mlp/load",
        "RepositoryModelLoad", field(2, "mlp"), UNAVAILABLE, ("not allowed",), {}),
    Row("an unload where models are not unloaded on request", f"{REPOSITORY}/models/mlp/unload",
        "RepositoryModelUnload", field(2, "mlp"), UNAVAILABLE, ("not allowed",), {}),
    Row("a load from a repository with a name", f"{REPOSITORY}/main/models/mlp/load",
        "RepositoryModelLoad", field(1, "main") + field(2, "mlp"), UNIMPLEMENTED, ("'main'",), {}),
    Row("an unload from a repository with a name", f"{REPOSITORY}/main/models/mlp/unload",
        "RepositoryModelUnload", field(1, "main") + field(2, "mlp"), UNIMPLEMENTED, ("'main'",), {}),
    Row("a log file", "/v2/logging", "LogSettings", log_setting("log_file", field(3, "/tmp/x")),
        UNIMPLEMENTED, ("log_file",), {"log_file": "/tmp/x"}),
    Row("an unknown log setting", "/v2/logging", "LogSettings", log_setting("log_colour", field(1, 1)),
        INVALID, ("log_colour",), {"log_colour": True}),
    Row("a log setting of another kind", "/v2/logging", "LogSettings",
        log_setting("log_info", field(3, "yes")), INVALID, ("log_info",), {"log_info": "yes"}),
    Row("a trace file", "/v2/trace/setting", "TraceSetting", setting("trace_file", "/tmp/x"), UNIMPLEMENTED,
        ("trace_file",), {"trace_file": "/tmp/x"}),
    Row("a trace level", "/v2/trace/setting", "TraceSetting", setting("trace_level", "TIMESTAMPS"),
        UNIMPLEMENTED, ("trace_level can only be OFF",), {"trace_level": ["TIMESTAMPS"]}),
    Row("an unknown trace setting", "/v2/trace/setting", "TraceSetting", setting("trace_colour", "red"),
        INVALID, ("trace_colour",), {"trace_colour": "red"}),
    Row("the status of an unknown region", f"{REGION}/nobody/status", "SystemSharedMemoryStatus",
        field(1, "nobody"), NOT_FOUND, ("Unable to find system shared memory region: 'nobody'",)),
    Row("a region of a file that is not there", f"{REGION}/r/register", "SystemSharedMemoryRegister",
        register("r", "/kingpole_nobody_made_this", 0, 8), INVALID, ("kingpole_nobody_made_this",),
        {"key": "/kingpole_nobody_made_this", "offset": 0, "byte_size": 8}),
    Row("a region whose key leads elsewhere", f"{REGION}/r/register", "SystemSharedMemoryRegister",
        register("r", "/../../etc/passwd", 0, 8), INVALID, ("passwd",),
        {"key": "/../../etc/passwd", "offset": 0, "byte_size": 8}),
    Row("memory of a GPU", "/v2/cudasharedmemory/region/r/register", "CudaSharedMemoryRegister",
        field(1, "r") + field(2, b"AAAA") + field(4, 8), UNIMPLEMENTED, ("this build has no CUDA",),
        {"raw_handle": {"b64": "QUFBQQ=="}, "device_id": 0, "byte_size": 8}),
    Row("inference on an unknown region", "/v2/models/mlp/infer", "ModelInfer",
        field(1, "mlp") + field(5, field(1, "x") + field(2, "FP32") + field(3, b"\1\4")
              + field(4, field(1, "shared_memory_region") + field(2, field(3, "nobody")))
              + field(4, field(1, "shared_memory_byte_size") + field(2, field(2, 16)))),
        NOT_FOUND, ("'nobody'",),
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters":
                     {"shared_memory_region": "nobody", "shared_memory_byte_size": 16}}]}),
    Row("a decoupled model asked for one response", "/v2/models/count/infer", "ModelInfer",
        field(1, "count") + field(5, field(1, "count") + field(2, "INT32") + field(3, b"\1"))
        + field(7, bytes(4)), UNIMPLEMENTED, ("'count'",),
        {"inputs": [{"name": "count", "datatype": "INT32", "shape": [1], "data": [0]}]}),
]  # fmt: skip

# Of a server that loads what it is asked to.
LOADS = [
    Row("a load of what is not in the repository", f"{REPOSITORY}/models/nowhere/load", "RepositoryModelLoad",
        field(2, "nowhere"), NOT_FOUND, ("'nowhere'", "no such model"), {}),
    Row("a load of a model that is broken", f"{REPOSITORY}/models/broken/load", "RepositoryModelLoad",
        field(2, "broken"), grpc.StatusCode.FAILED_PRECONDITION, ("no weights on Tuesdays",), {}),
    Row("a load with an unknown parameter", f"{REPOSITORY}/models/mlp/load", "RepositoryModelLoad",
        field(2, "mlp") + load_parameter("speed", field(2, 1)), INVALID, ("'speed'",),
        {"parameters": {"speed": 1}}),
    Row("a load with a configuration that is no JSON", f"{REPOSITORY}/models/mlp/load",
        "RepositoryModelLoad", field(2, "mlp") + load_parameter("config", field(3, "{")), INVALID,
        ("no JSON",), {"parameters": {"config": "{"}}),
    Row("a load with a file that leads elsewhere", f"{REPOSITORY}/models/mlp/load", "RepositoryModelLoad",
        field(2, "mlp") + load_parameter("config", field(3, "{}"))
        + load_parameter("file:../x", field(4, b"x")),
        INVALID, ("'file:../x'",), {"parameters": {"config": "{}", "file:../x": "eA=="}}),
    narrow("a number that UINT8 cannot hold", "UINT8", 300, field(4, varint(300))),
    narrow("a number that INT8 cannot hold", "INT8", -129, field(2, varint(-129))),
    Row("an inference with a model that is not loaded", "/v2/models/idle/infer", "ModelInfer",
        protobuf_request(served.rows(1), model="idle"), UNAVAILABLE, ("'idle'", "not loaded"),
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}),
]  # fmt: skip


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    repository = write_repository(tmp_path_factory.mktemp("loading"), served)
    for name in ("broken", "idle"):
        (repository / name).mkdir()
        (repository / name / "model.py").write_text("raise OSError('no weights on Tuesdays')\n")
    (repository / "narrow").mkdir()
    (repository / "narrow" / "model.yaml").write_text(NARROW)
    explicit = ("--control-mode", "explicit", "--load-model", served.MLP, "--load-model", "narrow")
    with serving(repository, served.MLP, *explicit) as running:
        yield running


def over_rest(running: Running, row: Row) -> Answer:
    address = running.host, running.port
    if row.body is not None:
        return post(address, row.path, json.dumps(row.body).encode())
    with connect(address) as opened:
        opened.sendall(head(row.path, {}, "GET"))
        return read_answer(opened)


def check_alike(running: Running, row: Row) -> None:
    answer = over_rest(running, row)
    with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(SERVICE + row.method)(row.message, timeout=30)
    assert (answer.status, raised.value.code()) == (STATUS[row.code], row.code), answer.text
    for words in row.words:
        assert words in json.loads(answer.body)["error"]
        assert words in str(raised.value.details())
    assert ("retry-after" in answer.headers) == (row.code in (UNAVAILABLE,))


def test_the_status_of_an_unknown_region_of_a_gpu(server: Running) -> None:
    check_alike(
        server,
        Row("", "/v2/cudasharedmemory/region/r/status", "CudaSharedMemoryStatus", field(1, "r"), NOT_FOUND,
            ("Unable to find cuda shared memory region: 'r'",)),
    )  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.says) for row in ROWS])
def test_a_call_is_refused_alike_over_rest_and_grpc(server: Running, row: Row) -> None:
    check_alike(server, row)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.says) for row in LOADS])
def test_a_load_is_refused_alike_over_rest_and_grpc(loading: Running, row: Row) -> None:
    check_alike(loading, row)


@pytest.mark.parametrize("version", [None, "7", "abc", "-1"])
def test_frames_refuse_what_is_asked_of_unknown_models_and_versions(
    server: Running, version: str | None
) -> None:
    name = served.MLP if version else "nobody"
    with kingpole_client.connect(f"frame://{server.address}") as client:
        for ask in (client.metadata, client.ready):
            with pytest.raises(kingpole_client.NotFound, match=version or UNKNOWN):
                ask(name, version=version)


def test_an_index_of_any_repository_is_that_of_all(server: Running) -> None:
    address = server.host, server.port
    named, unnamed = (post(address, f"/v2/repository{each}/index", b"{}") for each in ("/main", ""))
    assert named.status == 200
    assert named.body == unnamed.body
    with grpc.insecure_channel(server.address) as channel:
        index = channel.unary_unary(f"{SERVICE}RepositoryIndex")
        assert index(field(1, "main"), timeout=30) == index(b"", timeout=30)


def test_trace_settings_are_told_and_stay_what_they_are(server: Running) -> None:
    address = server.host, server.port
    told = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
            "trace_mode": "triton", "trace_file": ""}  # fmt: skip
    for path in ("/v2/trace/setting", f"/v2/models/{served.MLP}/trace/setting"):
        for body in ({}, told, dict.fromkeys(told)):
            answer = post(address, path, json.dumps(body).encode())
            assert (answer.status, json.loads(answer.body)) == (200, told)
    with grpc.insecure_channel(server.address) as channel:
        settings = channel.unary_unary(f"{SERVICE}TraceSetting")
        message = settings(setting("trace_rate", "1000"), timeout=30)
        assert message == settings(field(2, served.MLP), timeout=30)
        for name, value in told.items():
            entry = field(
                1, field(1, name) + field(2, field(1, value if isinstance(value, str) else value[0]))
            )
            assert entry in message


def test_regions_that_are_unknown_or_known_already(server: Running) -> None:
    name = f"kingpole_status_{uuid.uuid4().hex}"
    file = Path("/dev/shm") / name
    file.write_bytes(bytes(64))
    body = {"key": f"/{name}", "offset": 0, "byte_size": 64}
    again = Row("", f"{REGION}/{name}/register", "SystemSharedMemoryRegister",
                register(name, f"/{name}", 0, 64), grpc.StatusCode.ALREADY_EXISTS, (name,), body)  # fmt: skip
    address = server.host, server.port
    try:
        assert post(address, again.path, json.dumps(body).encode()).status == 200
        check_alike(server, again)
        with grpc.insecure_channel(server.address) as channel:
            for known in (name, "nobody"):
                channel.unary_unary(f"{SERVICE}SystemSharedMemoryUnregister")(field(1, known), timeout=30)
        assert post(address, f"{REGION}/nobody/unregister", b"").status == 200
    finally:
        file.unlink()


def test_a_key_outside_of_what_the_operator_allows(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    repository = write_repository(tmp_path_factory.mktemp("prefixed"), served)
    name = f"kingpole_status_{uuid.uuid4().hex}"
    body = {"key": f"/{name}", "offset": 0, "byte_size": 8}
    row = Row("", f"{REGION}/r/register", "SystemSharedMemoryRegister", register("r", f"/{name}", 0, 8),
              grpc.StatusCode.PERMISSION_DENIED, (name,), body)  # fmt: skip
    with serving(repository, served.MLP, "--shared-memory-prefix", "myapp_") as running:
        check_alike(running, row)


def test_a_queue_that_is_full_is_told_at_once_and_when_to_come_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("full")
    repository = write_repository(directory / "repository", served)
    (repository / "gated").mkdir()
    gate = directory / "gate"
    (repository / "gated" / "model.py").write_text(GATED.format(gate=str(gate)))
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with (
        serving(repository, served.MLP, "--queue-bytes", "1") as running,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask() -> Answer:
            return post((running.host, running.port), "/v2/models/gated/infer", body)

        try:
            # One that runs, maybe one that a worker holds ready, and one that waits.
            asked = [pool.submit(ask) for _ in range(8)]
            refused = next(as_completed(asked, timeout=30)).result()
            assert refused.status == 429, refused.text
            assert refused.headers["retry-after"] == "1"
            message = protobuf_request(served.rows(1), model="gated")
            with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(f"{SERVICE}ModelInfer")(message, timeout=30)
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            with (
                kingpole_client.connect(f"frame://{running.address}") as client,
                pytest.raises(kingpole_client.ResourceExhausted) as by_frame,
            ):
                client.infer("gated", {"x": served.rows(1)})
            for text in (refused.text, str(raised.value.details()), str(by_frame.value)):
                assert "the queue of model 'gated' is full" in text
        finally:
            gate.touch()
        # Those that were admitted are answered, each once.
        answers = [each.result() for each in asked]
        assert sorted({answer.status for answer in answers}) == [200, 429]


def test_codings_that_nobody_knows(server: Running) -> None:
    address = server.host, server.port
    answer = post(address, "/v2/models/mlp/infer", b"{}", {"Content-Encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
    twice = post(address, "/v2/models/mlp/infer", b"{}", {"Content-Encoding": "gzip, gzip"})
    assert twice.status == 415
    none_left = post(address, "/v2/models/mlp/infer", b"{}", {"Accept-Encoding": "identity;q=0, br"})
    assert none_left.status == 406
    empty = post(address, "/v2/models/mlp/infer", gzip.compress(b""), {"Content-Encoding": "gzip"})
    assert empty.status == 400
    raw = {"Inference-Header-Content-Length": "0"}
    for body, headers in ((b"", raw), (b"not gzip", {**raw, "Content-Encoding": "gzip"})):
        # Never a tensor of nothing.
        assert post(address, "/v2/models/mlp/infer", body, headers).status == 400
