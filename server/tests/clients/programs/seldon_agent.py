"""The calls of Seldon Core 2's agent, one by one and in its order, with the messages that it uses.

Source: Seldon Core 2, scheduler/pkg/agent: the agent speaks gRPC to the server beside it.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import report
from served import IDENTITY, MLP, WORKER_MLP, mlp, rows
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

SECONDS = 60


def state(stub: GRPCInferenceServiceStub, model: str) -> str:
    told = stub.RepositoryIndex(messages.RepositoryIndexRequest(), timeout=SECONDS)
    return next((row.state for row in told.models if row.name == model), "")


def load(stub: GRPCInferenceServiceStub, model: str) -> None:
    stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name=model), timeout=SECONDS)


def unload(stub: GRPCInferenceServiceStub, model: str) -> None:
    stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name=model), timeout=SECONDS)


def infer(stub: GRPCInferenceServiceStub, model: str) -> messages.ModelInferResponse:
    x = rows(2)
    request = messages.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return stub.ModelInfer(request, timeout=SECONDS)


def test_the_agent_starts_loads_swaps_and_ends(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        # It waits until the server lives, and unloads whatever is there.
        assert stub.ServerLive(messages.ServerLiveRequest(), timeout=SECONDS).live
        told = stub.RepositoryIndex(messages.RepositoryIndexRequest(), timeout=SECONDS)
        found = [row.name for row in told.models if row.state in ("READY", "LOADING")]
        assert set(found) >= {MLP, IDENTITY, WORKER_MLP}
        for model in found:
            unload(stub, model)
        assert not stub.RepositoryIndex(messages.RepositoryIndexRequest(ready=True), timeout=SECONDS).models
        # A load returns once the model is served, so that the request that waited for it can be sent.
        for model in (MLP, WORKER_MLP):
            load(stub, model)
            y = np.frombuffer(infer(stub, model).raw_output_contents[0], np.float32).reshape(2, 3)
            assert np.array_equal(y, mlp(rows(2)))
            assert stub.ModelReady(messages.ModelReadyRequest(name=model), timeout=SECONDS).ready
            assert (
                stub.ModelMetadata(messages.ModelMetadataRequest(name=model), timeout=SECONDS).name == model
            )
        # It makes room by unloading one for another, and asks for the first again.
        unload(stub, MLP)
        load(stub, IDENTITY)
        load(stub, MLP)
        infer(stub, MLP)
        assert state(stub, IDENTITY) == "READY"


def test_an_inference_of_an_unloaded_model_makes_the_agent_load_it(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load(stub, MLP)
        unload(stub, MLP)
        try:
            infer(stub, MLP)
        except grpc.RpcError as error:
            # Both make the agent load the model and send the request again.
            assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)
        else:
            raise AssertionError("an unloaded model inferred")
        load(stub, MLP)
        infer(stub, MLP)


def test_a_model_that_is_not_there_is_not_found_and_unloading_it_is_well(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        try:
            load(stub, "nobody_1")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            assert "nobody_1" in (error.details() or "")
        else:
            raise AssertionError("nobody was loaded")
        unload(stub, "nobody_1")


def test_unloading_goes_through_its_states(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load(stub, WORKER_MLP)
        unload(stub, WORKER_MLP)
        deadline = time.monotonic() + SECONDS
        while (now := state(stub, WORKER_MLP)) != "UNAVAILABLE":
            assert now == "UNLOADING", now
            assert time.monotonic() < deadline
        load(stub, WORKER_MLP)


def test_what_the_agent_passes_on_is_answered(address: str) -> None:
    # Its proxies say who they asked for, and pass REST, single and streamed inferences on.
    named = (("seldon-model", MLP), ("seldon-internal-model", f"{MLP}_1"), ("x-request-id", "seven"))
    headers = {**dict(named), "Content-Type": "application/json"}
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": rows(2).flatten().tolist()}
    for path in (f"/v2/models/{MLP}/infer", f"/v2/models/{MLP}/versions/1/infer"):
        body = json.dumps({"inputs": [tensor]}).encode()
        request = urllib.request.Request(f"http://{address}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            told = json.load(answer)
        assert told["outputs"][0]["data"] == mlp(rows(2)).flatten().tolist()
    x = rows(2)
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        asked = messages.ModelInferRequest(model_name=MLP, id="s", raw_input_contents=[x.tobytes()])
        asked.inputs.add(name="x", datatype="FP32", shape=x.shape)
        assert stub.ModelInfer(asked, timeout=SECONDS, metadata=named).id == "s"
        # MLServer's streams are of bare responses; the agent's proxy passes on whichever form it is.
        bare = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        dialect = (*named, ("kingpole-stream-dialect", "open-inference"))
        answers = list(bare(iter([asked, asked]), timeout=SECONDS, metadata=dialect))
        assert [each.id for each in answers] == ["s", "s"]
        assert [len(each.raw_output_contents[0]) for each in answers] == [24, 24]


def test_a_bad_request_that_the_agent_sends_twice_is_refused_twice(address: str) -> None:
    # 400 and 404 make its proxy load the model and send the request again, once.
    body = b'{"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, 5]}]}'
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(2):
            request = urllib.request.Request(f"http://{address}/v2/models/{MLP}/infer", body)
            try:
                urllib.request.urlopen(request, timeout=SECONDS).close()
            except urllib.error.HTTPError as error:
                assert error.code == 400, error
                error.close()
            else:
                raise AssertionError("a wrong shape was not refused")
            load(stub, MLP)


if __name__ == "__main__":
    report.run(dict(globals()))
