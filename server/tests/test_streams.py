"""Models that answer with any number of responses, through a whole server."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kingpole_client
import numpy as np
import pytest
from served_process import Served, needs_core, refused_at_the_start, write_model

pytestmark = needs_core

COUNT = """
import os, time
import numpy as np
from kingpole.contract import ModelError

INPUTS = [("count", "INT32", [1])]
OUTPUTS = [("value", "INT32", [-1])]

def infer(count, parameters):
    value = -1
    try:
        for value in range(int(count[0])):
            if value == parameters.get("fail_at"):
                raise ModelError("UNAVAILABLE", f"cannot count beyond {value}")
            if value == parameters.get("die_at"):
                os.kill(os.getpid(), 9)
            time.sleep(parameters.get("wait_us", 0) / 1e6)
            yield np.full(parameters.get("size", 1), value, np.int32)
    finally:
        if "mark" in parameters:
            with open(parameters["mark"], "w") as mark:
                mark.write(str(value))
"""

SAY = """
import json
import numpy as np
INPUTS = [("x", "INT32", [1])]
OUTPUTS = [("said", "BYTES", [1])]
def infer(x, parameters):
    return np.array([json.dumps(dict(parameters)).encode()], object)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("streams")
    for name in ("count", "mortal"):
        write_model(directory / "models", name, COUNT)
        (directory / "models" / name / "model.yaml").write_text("worker: own\n")
    write_model(directory / "models", "say", SAY)
    served = Served(
        str(directory / "models"), "--listen", f"unix:{directory}/socket",
        "--http-header-forward-pattern", "^x-say-", "--grpc-header-forward-pattern", "GRPC",
    )  # fmt: skip
    yield served
    served.end()


@pytest.fixture(params=["http", "grpc", "frame", "unix"])
def url(server: Served, request: pytest.FixtureRequest) -> str:
    if request.param == "unix":
        listening = next(line for line in server.lines if "listens on" in line)
        return "unix:" + listening.partition("unix:")[2].partition(" ")[0].rstrip(",")
    return server.url.replace("http", request.param)


def count(number: int) -> dict[str, Any]:
    return {"count": np.array([number], np.int32)}


def eventually(check: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_the_client_is_given_any_number_of_responses(url: str) -> None:
    with kingpole_client.connect(url) as client:
        for number in (0, 1, 1000):
            responses = list(client.stream("count", count(number), id="a"))
            assert [int(response["value"][0]) for response in responses] == list(range(number))
            assert {response.stage for response in responses} <= {"part"}
            assert {response.id for response in responses} <= {"a"}
        only = list(client.stream("say", {"x": np.array([1], np.int32)}))
        assert [response.stage for response in only] == ["only"]
        with pytest.raises(kingpole_client.Unimplemented, match="any number of responses"):
            client.infer("count", count(1))


def test_errors_are_raised_where_they_come(url: str) -> None:
    with kingpole_client.connect(url) as client:
        stream = client.stream("count", count(5), parameters={"fail_at": 2})
        assert [int(next(stream)["value"][0]), int(next(stream)["value"][0])] == [0, 1]
        with pytest.raises(kingpole_client.Unavailable, match="cannot count beyond 2"):
            next(stream)
        assert list(stream) == []
        with pytest.raises(kingpole_client.NotFound, match="unknown model"):
            list(client.stream("nobody", count(1)))
        slow = client.stream("count", count(100), parameters={"wait_us": 50_000}, timeout_us=200_000)
        with pytest.raises(kingpole_client.DeadlineExceeded):
            list(slow)


def test_a_stream_that_is_closed_early_closes_the_generator(url: str, tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    with kingpole_client.connect(url) as client:
        parameters = {"mark": str(mark), "wait_us": 1000}
        with client.stream("count", count(1_000_000), parameters=parameters) as stream:
            next(stream)
        eventually(mark.exists)
        assert len(list(client.stream("count", count(1)))) == 1


def test_asyncio_is_given_any_number_of_responses(url: str, tmp_path: Path) -> None:
    mark = tmp_path / "closed"

    async def run() -> None:
        client = await kingpole_client.aconnect(url)
        async with client:
            values = [int(part["value"][0]) async for part in client.stream("count", count(1000))]
            assert values == list(range(1000))
            failing = client.stream("count", count(2), parameters={"fail_at": 1})
            assert (await failing.__anext__())["value"][0] == 0
            with pytest.raises(kingpole_client.Unavailable, match="cannot count beyond 1"):
                await failing.__anext__()
            parameters = {"mark": str(mark), "wait_us": 1000}
            async with client.stream("count", count(1_000_000), parameters=parameters) as stream:
                await stream.__anext__()
            slow = client.stream("count", count(2), parameters={"wait_us": 500_000}, timeout_us=200_000)
            with pytest.raises(kingpole_client.DeadlineExceeded):
                await slow.__anext__()

    asyncio.run(run())
    eventually(mark.exists)


def test_a_worker_killed_in_mid_stream_is_an_error_and_nothing_is_given_twice(url: str) -> None:
    with kingpole_client.connect(url) as client:
        stream = client.stream("mortal", count(10), parameters={"die_at": 5})
        values: list[int] = []
        with pytest.raises(kingpole_client.KingpoleError) as raised:
            values.extend(int(part["value"][0]) for part in stream)
        assert raised.value.code in ("UNAVAILABLE", "INTERNAL"), raised.value
        # What the server had taken before the end came arrives, each once and in order.
        assert values == list(range(len(values)))
        eventually(lambda: _counts(client))


def _counts(client: kingpole_client.Client) -> bool:
    try:
        return len(list(client.stream("mortal", count(2), timeout_us=5_000_000))) == 2
    except (kingpole_client.Unavailable, kingpole_client.DeadlineExceeded):
        return False


def test_a_fast_model_waits_for_a_slow_reader(server: Served, url: str, tmp_path: Path) -> None:
    """100,000 responses of 4 KB would be 400 MB; the server holds a few of them."""

    def resident_bytes() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    mark = tmp_path / "closed"
    with kingpole_client.connect(url) as client:
        before = resident_bytes()
        parameters = {"size": 1000, "mark": str(mark)}
        with client.stream("count", count(100_000), parameters=parameters) as stream:
            for _ in range(20):
                next(stream)
                time.sleep(0.05)
            grown = resident_bytes() - before
        assert grown < 40 << 20, f"the server grew by {grown} bytes"
        eventually(mark.exists)
        assert int(mark.read_text()) < 20_000, "the model ran ahead of its reader"


def test_generate_stream_is_server_sent_events(server: Served) -> None:
    address = server.url.partition("//")[2]
    connection = http.client.HTTPConnection(address, timeout=30)
    cases: tuple[tuple[Any, list[Any]], ...] = (
        ({"count": 3}, [0, 1, 2]),
        ({"count": [0]}, []),
        ({"count": 2, "parameters": {"size": 2}}, [[0, 0], [1, 1]]),
    )
    for body, values in cases:
        connection.request("POST", "/v2/models/count/generate_stream", json.dumps(body))
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/event-stream; charset=utf-8")
        events = [event for event in answer.read().decode().split("\n\n") if event]
        assert [json.loads(event.removeprefix("data: "))["value"] for event in events] == values
    connection.request("POST", "/v2/models/count/generate_stream", json.dumps({"count": 3, "fail_at": 1}))
    text = connection.getresponse().read().decode()
    assert text.endswith('event: error\ndata: {"error":"cannot count beyond 1"}\n\n'), text
    connection.request("POST", "/v2/models/count/generate_stream", json.dumps({"count": 3, "fail_at": 0}))
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (503, {"error": "cannot count beyond 0"})
    assert server.ask("/v2/models/count/generate", {"count": 1})[1]["value"] == 0
    status, said = server.ask("/v2/models/count/generate", {"count": 2})
    assert status == 400
    assert "exactly 1 response" in said["error"]
    connection.close()


def test_a_browser_that_leaves_closes_the_generator(server: Served, tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    host, _, port = server.url.partition("//")[2].partition(":")
    body = json.dumps({"count": 1_000_000, "wait_us": 1000, "mark": str(mark)})
    with socket.create_connection((host, int(port)), 30) as leaving:
        head = f"POST /v2/models/count/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        leaving.sendall(f"{head}\r\n\r\n{body}".encode())
        assert leaving.recv(1)
    eventually(mark.exists)


def test_headers_that_match_a_pattern_become_parameters(server: Served) -> None:
    address = server.url.partition("//")[2]
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"X-Say-Tenant": "blue", "X-Other": "no", "X-Say-Mine": "theirs"}
    body = json.dumps({"x": 1, "x-say-mine": "mine"})
    connection.request("POST", "/v2/models/say/generate", body, headers)
    said = json.loads(json.loads(connection.getresponse().read())["said"])
    assert said == {"x-say-tenant": "blue", "x-say-mine": "mine"}
    headers["Content-Type"] = "application/json"
    for path in ("/v1/models/say:predict", "/models/say/invoke"):
        connection.request("POST", path, json.dumps({"instances": [1]}), headers)
        (said,) = json.loads(connection.getresponse().read())["predictions"]
        assert json.loads(said) == {"x-say-tenant": "blue", "x-say-mine": "theirs"}, path
    connection.close()
    with kingpole_client.connect(server.url.replace("http", "grpc")) as client:
        response = next(client.stream("say", {"x": np.array([1], np.int32)}))
        assert "grpc-accept-encoding" in json.loads(response["said"][0])


def test_a_pattern_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    write_model(tmp_path, "say", SAY)
    said = refused_at_the_start("--http-header-forward-pattern", "x-(", tmp_path)
    assert "http_header_forward_pattern: 'x-(' is no regular expression" in said
