"""The calls of Seldon Core 1's executor with `protocol: v2`, one by one, and of the kubelet beside it.

The executor reaches a graph's unit over HTTP (port 9000 there) and gRPC (9500): the same port here.

Source: Seldon Core 1.17: executor/api/rest, executor/api/grpc/kfserving, and operator/controllers for probes.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import report
from served import IDENTITY, MLP, WORKER_MLP, mlp, rows
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

SECONDS = 30
PUID = "Seldon-Puid"


def ask(address: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask as the executor's Go client does: its own request id, and JSON as the content type."""
    data = None if body is None else json.dumps(body).encode()
    told = {
        "Content-Type": "application/json",
        PUID: "abc",
        "User-Agent": "Go-http-client/1.1",
        **(headers or {}),
    }
    request = urllib.request.Request(f"http://{address}{path}", data, told)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def tensor(count: int) -> dict[str, Any]:
    return {"name": "x", "shape": [count, 4], "datatype": "FP32", "data": rows(count).tolist()}


def test_the_executor_infers_with_the_unit_of_its_graph(address: str) -> None:
    for unit in (MLP, WORKER_MLP):
        status, told = ask(address, f"/v2/models/{unit}/infer", {"id": "abc", "inputs": [tensor(2)]})
        assert status == 200, told
        assert told["id"] == "abc"
        assert told["model_name"] == unit
        assert told["outputs"][0]["data"] == mlp(rows(2)).flatten().tolist()


def test_its_status_call_asks_whether_the_unit_is_ready(address: str) -> None:
    assert ask(address, f"/v2/models/{MLP}/ready") == (200, {"name": MLP, "ready": True})
    assert ask(address, "/v2/models/nobody/ready")[0] == 404


def test_its_metadata_call_describes_the_unit(address: str) -> None:
    status, told = ask(address, f"/v2/models/{MLP}")
    assert status == 200
    # It wants these of a unit, whatever else is there, to describe the whole graph.
    assert (told["name"], told["versions"]) == (MLP, ["1"])
    assert told["platform"]
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


def test_the_kubelet_probes_the_container(address: str) -> None:
    assert ask(address, "/v2/health/live", headers={"User-Agent": "kube-probe/1.29"}) == (200, {"live": True})
    assert ask(address, "/v2/health/ready", headers={"User-Agent": "kube-probe/1.29"}) == (
        200,
        {"ready": True},
    )
    # A container without probes of its own gets one that only connects.
    host, port = address.split(":")
    for _ in range(20):
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    assert ask(address, "/v2/health/ready")[0] == 200


def test_a_graph_of_two_units_is_a_request_for_each(address: str) -> None:
    # The executor hands a unit's answer to the next as its request: its outputs as inputs.
    _, first = ask(address, f"/v2/models/{MLP}/infer", {"inputs": [tensor(1)]})
    y = first["outputs"][0]
    wide = {"name": "x", "shape": [1, 4], "datatype": y["datatype"], "data": [*y["data"], 0.0]}
    status, second = ask(address, f"/v2/models/{WORKER_MLP}/infer", {"inputs": [wide]})
    assert status == 200, second
    expected = mlp(np.array([[*y["data"], 0.0]], np.float32))
    assert second["outputs"][0]["data"] == expected.flatten().tolist()


def test_the_executor_passes_a_units_refusal_on(address: str) -> None:
    for unit, given, status, part in (
        ("nobody", tensor(1), 404, "nobody"),
        (MLP, {**tensor(1), "name": "z"}, 400, "'z'"),
        (MLP, {**tensor(1), "datatype": "FP64"}, 400, "FP64"),
        (IDENTITY, tensor(1), 400, IDENTITY),
    ):
        said, told = ask(address, f"/v2/models/{unit}/infer", {"inputs": [given]})
        assert said == status, told
        assert part in told["error"], told


def test_the_executor_over_grpc(address: str) -> None:
    metadata = (("seldon-puid", "abc"),)
    x = rows(2)
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = messages.ModelInferRequest(model_name=MLP, id="abc")
        # It converts nothing: typed contents come from whoever asked it.
        given = request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        given.contents.fp32_contents.extend(x.flatten().tolist())
        told = stub.ModelInfer(request, timeout=SECONDS, metadata=metadata)
        assert (told.id, told.model_name) == ("abc", MLP)
        raw = np.frombuffer(told.raw_output_contents[0], np.float32) if told.raw_output_contents else None
        y = told.outputs[0].contents.fp32_contents if raw is None else raw
        assert list(y) == mlp(x).flatten().tolist()
        assert stub.ModelReady(messages.ModelReadyRequest(name=MLP), timeout=SECONDS, metadata=metadata).ready
        described = stub.ModelMetadata(messages.ModelMetadataRequest(name=MLP), timeout=SECONDS)
        assert [each.name for each in described.inputs] == ["x"]
        try:
            stub.ModelInfer(messages.ModelInferRequest(model_name="nobody"), timeout=SECONDS)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError("nobody inferred")


if __name__ == "__main__":
    report.run(dict(globals()))
