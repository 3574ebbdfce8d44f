"""Our client with servers that speak Open Inference and know no frames.

Ours stands in for them, behind something that answers to frames as they do; and Triton itself, where the load
test has installed it.
"""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kingpole_client
import numpy as np
import pytest
import real_server
from kingpole_client._http import HttpAnswer
from kingpole_client._messages import InferRequest
from kingpole_client._open_inference import OpenInference, decode

TRITON = Path(__file__).parents[3] / ".cache" / "peers" / "triton"
DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16,
    "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Elsewhere(BaseHTTPRequestHandler):
    """A server that knows no frames; what it does know is answered by ours."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    behind = ""
    is_binary = True
    refusal = 404
    asked: list[tuple[str, str]]

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Content-Type", "")))
        if self.path == "/v1/infer":
            return self.answer(self.refusal, {"Content-Type": "application/json"}, b'{"detail":"Not Found"}')
        if "inference-header-content-length" in self.headers and not self.is_binary:
            return self.answer(422, {"Content-Type": "application/json"}, b'{"detail":"no JSON"}')
        connection = http.client.HTTPConnection(self.behind, timeout=20)
        connection.request(self.command, self.path, body, dict(self.headers))
        with contextlib.closing(connection), connection.getresponse() as answer:
            content = answer.read()
            if self.path == "/v2" and not self.is_binary:
                document = json.loads(content)
                document["extensions"].remove("binary_tensor_data")
                content = json.dumps(document).encode()
            kept = {name: value for name, value in answer.headers.items() if name != "content-length"}
            return self.answer(answer.status, kept, content)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def answer(self, status, headers, content):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    directory = real_server.write_echo(tmp_path_factory.mktemp("behind"))
    lines = [f"  - {{name: {name}, datatype: {name}, shape: [-1]}}" for name in (*DTYPES, "BF16", "BYTES")]
    (directory / "all").mkdir()
    tensors = "\n".join(lines)
    (directory / "all" / "model.yaml").write_text(
        f"backend: identity\ninputs:\n{tensors}\noutputs:\n{tensors}\n"
    )
    with real_server.serving(directory) as address:
        yield address


@contextlib.contextmanager
def elsewhere(behind, **attributes):
    handler = type("Handler", (Elsewhere,), {"behind": behind, "asked": [], **attributes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def inferred(url, *arguments, is_async=False, **options):
    """One inference by the blocking or the awaited client."""
    if not is_async:
        with kingpole_client.connect(url, timeout_us=20_000_000) as client:
            return client.infer(*arguments, **options)

    async def ask():
        async with await kingpole_client.aconnect(url, timeout_us=20_000_000) as client:
            return await client.infer(*arguments, **options)

    return asyncio.run(ask())


either_client = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "awaited"])
either_form = pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])


@either_client
@either_form
def test_every_datatype_comes_back(behind, is_binary, is_async):
    inputs = {name: np.array([0, 1, 1], dtype) for name, dtype in DTYPES.items()}
    inputs["UINT64"][1], inputs["INT64"][1] = 2**64 - 1, -(2**63)
    inputs["FP32"][1], inputs["FP64"][1], inputs["FP16"][1] = 1e-45, 0.1, 65504
    inputs["BYTES"] = np.array(["", "Grüße", 'a"b\\'], dtype=object)
    expected_bf16 = np.array([0.0, 1.5, -2.0], np.float32)
    inputs["BF16"] = kingpole_client.BFloat16.from_float32(expected_bf16)
    with elsewhere(behind, is_binary=is_binary) as (url, _):
        response = inferred(url, "all", inputs, id="7", is_async=is_async)
    assert (response.model, response.version, response.id) == ("all", "1", "7")
    for name in DTYPES:
        assert response[name].dtype == inputs[name].dtype
        np.testing.assert_array_equal(response[name], inputs[name])
    assert response["BYTES"].tolist() == [b"", "Grüße".encode(), b'a"b\\']
    np.testing.assert_array_equal(response["BF16"].astype(np.float32), expected_bf16)


@either_client
@either_form
def test_outputs_version_and_parameters_are_asked_for(behind, is_binary, is_async):
    with elsewhere(behind, is_binary=is_binary) as (url, asked):
        options = {"outputs": ["x"], "version": "1", "parameters": {"k": "v"}, "priority": 1}
        response = inferred(url, "echo", {"x": X}, is_async=is_async, **options)
        np.testing.assert_array_equal(response["x"], X)
        with pytest.raises(kingpole_client.InvalidArgument, match="nothing"):
            inferred(url, "echo", {"x": X}, outputs=["nothing"], is_async=is_async)
    kind = "application/octet-stream" if is_binary else "application/json"
    assert ("/v2/models/echo/versions/1/infer", kind) in asked


@pytest.mark.parametrize("refusal", [404, 405, 415, 501])
def test_a_frame_is_tried_once(behind, refusal):
    with elsewhere(behind, refusal=refusal) as (url, asked), kingpole_client.connect(url) as client:
        many = client.infer_many(
            "echo", ({"x": np.full((1, 2), i, np.float32)} for i in range(20)), in_flight=1
        )
        assert [int(response["x"][0, 0]) for response in many] == list(range(20))
        assert client.submit("echo", {"x": X}).result()["x"].tolist() == X.tolist()
        assert [row.name for row in client.models()] == ["all", "echo"]
    paths = [path for path, _ in asked]
    assert (paths.count("/v1/infer"), paths.count("/v2")) == (1, 1)


@either_client
def test_errors_keep_their_code_and_text(behind, is_async):
    with elsewhere(behind) as (url, _):
        with pytest.raises(kingpole_client.NotFound, match="unknown model"):
            inferred(url, "none", {"x": X}, is_async=is_async)
        with pytest.raises(kingpole_client.InvalidArgument, match="'x'"):
            inferred(url, "echo", {"x": X.astype(np.int64)}, is_async=is_async)
        with pytest.raises(kingpole_client.InvalidArgument, match="must be named"):
            inferred(url, "", {"x": X}, is_async=is_async)


def test_what_is_not_a_tensor_travels_as_parameters():
    sequence = kingpole_client.Sequence(7, start=True)
    request = InferRequest("m", {}, timeout_us=5, priority=2, parameters={"k": 1.5}, sequence=sequence)
    for is_binary in (True, False):
        said = json.loads(OpenInference(is_binary=is_binary).encode(request).buffers[0])["parameters"]
        assert said.pop("binary_data_output", False) is is_binary
        own = {"k": 1.5, "timeout": 5, "priority": 2}
        assert said == {**own, "sequence_id": 7, "sequence_start": True, "sequence_end": False}


def test_what_json_cannot_hold_is_refused_before_it_is_sent(behind):
    with elsewhere(behind, is_binary=False) as (url, _):
        with pytest.raises(kingpole_client.InvalidArgument, match="NaN"):
            inferred(url, "echo", {"x": np.full((1, 1), np.nan, np.float32)})
        with pytest.raises(kingpole_client.InvalidArgument, match="UTF-8"):
            inferred(url, "all", {"BYTES": np.array([b"\xff"], dtype=object)})


def test_a_server_that_speaks_neither_says_what_it_says(behind):
    class Neither(Elsewhere):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(404, {"Content-Type": "text/html"}, b"<h1>no</h1>")

        do_GET = do_POST  # noqa: N815 - http.server's name

    answers = {"do_GET": Neither.do_GET, "do_POST": Neither.do_POST}
    with (
        elsewhere(behind, **answers) as (url, _),
        pytest.raises(kingpole_client.NotFound, match="<h1>no</h1>"),
    ):
        inferred(url, "echo", {"x": X})


def answered(body, binary=b"", length=None):
    head = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = (
        {} if length is None and not binary else {"inference-header-content-length": str(length or len(head))}
    )
    return HttpAnswer(200, headers, memoryview(head + binary))


def output(**fields):
    return {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], **fields}]}


@pytest.mark.parametrize(
    "answer",
    [
        answered(b"{"), answered(b"[]"), answered(b"3"), answered(b"\xff"), answered(b"[" * 100_000),
        answered({"outputs": 3}), answered({"outputs": [3]}), answered({"outputs": [{}]}),
        answered(output(data=[1, 2])), answered(output(data=["a"])), answered(output(data={})),
        answered(output(data=[[1], [1, 2]])), answered(output()), answered(output(datatype="FP8", data=[1])),
        answered(output(datatype=["FP32"], data=[1])), answered(output(shape=[-1], data=[1])),
        answered(output(shape=["a"], data=[1])), answered(output(shape=[1 << 62, 1 << 62], data=[1])),
        answered(output(datatype="UINT8", data=[300])), answered(output(datatype="BYTES", data=[3])),
        answered(output(parameters={"binary_data_size": 5}), b"1234"),
        answered(output(parameters={"binary_data_size": -4}), b"1234"),
        answered(output(parameters={"binary_data_size": "4"}), b"1234"),
        answered(output(parameters={"binary_data_size": True}), b"1234"),
        answered(output(parameters=[]), b"1234"), answered({"parameters": 3}),
        answered({"outputs": output(data=[1])["outputs"] * 2}),
        answered({}, length="99"), answered({}, length="-1"), answered({}, length="x"),
        answered({}, length="9" * 30),
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_an_error_of_the_server(answer):
    with pytest.raises(kingpole_client.Internal):
        decode(answer)


TRITON_CONFIGURATION = """backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [3] }, { name: "s" data_type: TYPE_STRING dims: [1] }]
output [{ name: "x" data_type: TYPE_FP32 dims: [3] }, { name: "s" data_type: TYPE_STRING dims: [1] }]
"""
TRITON_MODEL = """
import triton_python_backend_utils as utils
class TritonPythonModel:
    def execute(self, requests):
        names = ("x", "s")
        tensors = [[utils.get_input_tensor_by_name(each, name) for name in names] for each in requests]
        return [utils.InferenceResponse([utils.Tensor(n, t.as_numpy()) for n, t in zip(names, each)])
                for each in tensors]
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """Triton with one model that gives back what it got; yields its URL."""
    if not (TRITON / "ready").exists():
        pytest.skip("Triton is not installed; sh loadtest/peers/setup.sh does it")
    directory = tmp_path_factory.mktemp("triton")
    (directory / "echo" / "1").mkdir(parents=True)
    (directory / "echo" / "config.pbtxt").write_text(TRITON_CONFIGURATION)
    (directory / "echo" / "1" / "model.py").write_text(TRITON_MODEL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [TRITON / "tritonserver" / "bin" / "tritonserver", f"--model-repository={directory}"]
    command += [f"--backend-directory={TRITON / 'tritonserver' / 'backends'}", "--http-address=127.0.0.1"]
    command += [f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false", "--log-verbose=0"]
    libraries = (TRITON / "library_path").read_text().strip()
    path = f"{TRITON / 'venv' / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PATH": path, "PYTHONPATH": ""}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        with kingpole_client.connect(url) as client:
            while not (client.live() and client.ready()):
                assert process.poll() is None, (directory / "log").read_text()
                time.sleep(0.05)  # Triton says nowhere else that it is ready
        yield url
    finally:
        process.terminate()
        process.wait(60)


@either_client
def test_triton_is_served_by_our_client(triton, is_async):
    texts = np.array([["é"], [""]], dtype=object)
    response = inferred(triton, "echo", {"x": X, "s": texts}, id="7", is_async=is_async)
    np.testing.assert_array_equal(response["x"], X)
    assert response["s"].tolist() == [["é".encode()], [b""]]
    assert (response.model, response.version, response.id) == ("echo", "1", "7")
    one = inferred(triton, "echo", {"x": X, "s": texts}, outputs=["x"], is_async=is_async)
    assert list(one.outputs) == ["x"]
    with pytest.raises(kingpole_client.NotFound, match="unknown model"):
        inferred(triton, "none", {"x": X}, is_async=is_async)
    with pytest.raises(kingpole_client.InvalidArgument, match="x"):
        inferred(triton, "echo", {"x": X[:, :2], "s": texts}, is_async=is_async)


def test_triton_is_described_to_our_client(triton):
    with kingpole_client.connect(triton) as client:
        assert client.metadata().name == "triton"
        assert [spec.name for spec in client.metadata("echo").inputs] == ["x", "s"]
        assert [(row.name, row.state) for row in client.models()] == [("echo", "READY")]
        assert client.ready("echo")
