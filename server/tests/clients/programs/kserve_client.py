"""What kserve's inference clients, REST and gRPC, do with the server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import numpy as np
import report
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.errors import UnsupportedProtocol
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from served import (
    DATATYPES,
    IDENTITY,
    MLP,
    WORKER_MLP,
    check_equal,
    check_named,
    classes,
    identity_inputs,
    mlp,
    rows,
)


@contextlib.asynccontextmanager
async def rest_client() -> AsyncIterator[Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as opened:
        yield opened


def mlp_request(x: Any, *, model: str = MLP, binary: bool = True, binary_out: bool | None = None) -> Any:
    given = InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    outputs = None
    if binary_out is not None:
        outputs = [RequestedOutput("y", {"binary_data": binary_out})]
    return InferRequest(model, [given], request_id="seven", request_outputs=outputs)


def identity_request(*, binary: bool, parameters: dict[str, Any] | None = None) -> Any:
    inputs = []
    for name, tensor in identity_inputs().items():
        made = InferInput(name, list(tensor.shape), DATATYPES[name])
        # The client itself refuses halves in JSON.
        made.set_data_from_numpy(tensor, binary_data=binary or name == "halves")
        inputs.append(made)
    return InferRequest(IDENTITY, inputs, parameters=parameters)


def check_identity(response: Any) -> None:
    for name, tensor in identity_inputs().items():
        output = response.get_output_by_name(f"{name}_out")
        assert output is not None, f"no output {name}_out"
        given = output.as_numpy()
        check_equal(given if tensor.dtype != object else given.astype(object), tensor)


async def test_the_rest_client_finds_the_server_and_a_model_ready(address: str) -> None:
    async with rest_client() as opened:
        base = f"http://{address}"
        assert await opened.is_server_live(base) is True
        assert await opened.is_server_ready(base) is True
        assert await opened.is_model_ready(base, MLP) is True
        assert await opened.is_model_ready(base, "nobody") is False


async def test_the_rest_client_infers_binary_and_json_alike(address: str) -> None:
    async with rest_client() as opened:
        for binary in (True, False):
            for binary_out in (None, True, False):
                request = mlp_request(rows(3), binary=binary, binary_out=binary_out)
                response = await opened.infer(f"http://{address}", request, model_name=MLP)
                check_equal(response.outputs[0].as_numpy(), mlp(rows(3)))
                assert response.id == "seven"
                assert response.model_name == MLP


async def test_the_rest_client_infers_by_a_model_in_a_worker_process(address: str) -> None:
    async with rest_client() as opened:
        response = await opened.infer(
            f"http://{address}", mlp_request(rows(2), model=WORKER_MLP), model_name=WORKER_MLP
        )
        check_equal(response.outputs[0].as_numpy(), mlp(rows(2)))


async def test_the_rest_client_takes_a_plain_dictionary(address: str) -> None:
    async with rest_client() as opened:
        body = {
            "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": rows(2).tolist()}],
        }
        response = await opened.infer(f"http://{address}", body, model_name=MLP)
        check_equal(response.outputs[0].as_numpy(), mlp(rows(2)))


async def test_the_rest_client_gets_every_datatype_back_as_binary(address: str) -> None:
    async with rest_client() as opened:
        request = identity_request(binary=True, parameters={"binary_data_output": True})
        check_identity(await opened.infer(f"http://{address}", request, model_name=IDENTITY))


async def test_the_rest_client_gets_every_datatype_back_as_json(address: str) -> None:
    async with rest_client() as opened:
        request = identity_request(binary=False)
        check_identity(await opened.infer(f"http://{address}", request, model_name=IDENTITY))


async def test_the_rest_client_is_told_what_was_wrong(address: str) -> None:
    async with rest_client() as opened:
        for model, x, parts in (
            ("nobody", rows(1), ("nobody", "404")),
            (MLP, np.zeros((2, 5), np.float32), ("'x'", "[2,5]", "[-1,4]", "400")),
        ):
            try:
                await opened.infer(f"http://{address}", mlp_request(x, model=model), model_name=model)
            except httpx.HTTPStatusError as error:
                check_named(str(error), *parts)
            else:
                raise AssertionError(f"{parts} was not refused")


async def test_the_grpc_client_finds_the_server_and_a_model_ready(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        assert await opened.is_server_live() is True
        assert await opened.is_server_ready() is True
        assert await opened.is_model_ready(MLP) is True
        try:
            await opened.is_model_ready("nobody")
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            check_named(str(error.details()), "nobody")
        else:
            raise AssertionError("an unknown model was found")


async def test_the_grpc_client_infers_raw_and_typed_contents_alike(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        for count in (1, 6):
            for binary in (True, False):
                response = await opened.infer(mlp_request(rows(count), binary=binary))
                check_equal(response.outputs[0].as_numpy(), mlp(rows(count)))
                assert response.id == "seven"


async def test_the_grpc_client_infers_by_a_model_in_a_worker_process(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        response = await opened.infer(mlp_request(rows(2), model=WORKER_MLP))
        check_equal(response.outputs[0].as_numpy(), mlp(rows(2)))


async def test_the_grpc_client_gets_every_datatype_back(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        check_identity(await opened.infer(identity_request(binary=True)))


async def test_the_grpc_client_is_told_what_was_wrong(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        for model, x, code, parts in (
            ("nobody", rows(1), grpc.StatusCode.NOT_FOUND, ("nobody",)),
            (MLP, np.zeros((2, 5), np.float32), grpc.StatusCode.INVALID_ARGUMENT, ("'x'", "[2,5]", "[-1,4]")),
        ):
            try:
                await opened.infer(mlp_request(x, model=model))
            except grpc.aio.AioRpcError as error:
                assert error.code() == code, error
                check_named(str(error.details()), *parts)
            else:
                raise AssertionError(f"{parts} was not refused")


def class_request(parameters: dict[str, Any]) -> Any:
    request = mlp_request(rows(2))
    return InferRequest(
        MLP,
        request.inputs,
        parameters=parameters,
        request_outputs=[RequestedOutput("y", {"classification": 2, "binary_data": False})],
    )


async def test_the_rest_client_passes_everything_beside_the_tensors(address: str) -> None:
    async with rest_client() as opened:
        given: dict[str, str] = {}
        request = class_request({"timeout": 10_000_000, "priority": 1, "own": "a", "flag": True})
        headers = {"x-request-id": "seven"}
        base = f"http://{address}"
        response = await opened.infer(
            base, request, model_name=MLP, headers=headers, response_headers=given, timeout=30
        )
        assert response.outputs[0].data == [each for row in classes(rows(2), 2) for each in row]
        assert given["content-type"] == "application/json"
        path = f"{base}/v2/models/{MLP}/infer"
        tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": rows(2).tolist()}
        raw = await opened.infer(path, {"inputs": [tensor]}, is_graph_endpoint=True)
        assert raw["model_name"] == MLP
        assert await opened.is_server_ready(base, headers=headers, timeout=30)
        assert await opened.is_model_ready(base, MLP, headers=headers, timeout=30)


async def test_the_grpc_client_passes_everything_beside_the_tensors(address: str) -> None:
    async with InferenceGRPCClient(address) as opened:
        headers = (("x-request-id", "seven"),)
        request = class_request({"timeout": 10_000_000, "own": "a", "flag": True})
        response = await opened.infer(request, timeout=30, headers=headers)
        given = response.outputs[0].as_numpy().flatten()
        assert [each.decode() for each in given] == [each for row in classes(rows(2), 2) for each in row]
        assert await opened.is_server_ready(timeout=30, headers=headers)
        assert await opened.is_model_ready(MLP, timeout=30, headers=headers)


@contextlib.asynccontextmanager
async def v1_client() -> AsyncIterator[Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=30)) as opened:
        yield opened


async def test_the_v1_client_finds_the_server_and_a_model_ready(address: str) -> None:
    async with v1_client() as opened:
        base = f"http://{address}"
        assert await opened.is_server_live(base) is True
        assert await opened.is_model_ready(base, MLP) is True
        try:
            await opened.is_model_ready(base, "nobody")
        except httpx.HTTPStatusError as error:
            assert error.response.status_code == 404
        else:
            raise AssertionError("an unknown model was not refused")


async def test_the_v1_client_predicts(address: str) -> None:
    async with v1_client() as opened:
        for model in (MLP, WORKER_MLP):
            data = {"instances": rows(3).tolist()}
            response = await opened.infer(f"http://{address}", data, model_name=model)
            assert response == {"predictions": mlp(rows(3)).tolist()}


async def test_the_v1_client_is_told_what_was_wrong(address: str) -> None:
    async with v1_client() as opened:
        base = f"http://{address}"
        data = {"instances": [[1, 2]]}
        for ask, model, status, parts in (
            (opened.infer, MLP, 400, ("'x'", "[1,2]", "[-1,4]")),
            (opened.infer, "nobody", 404, ("nobody",)),
            (opened.explain, MLP, 501, ("explanations",)),
        ):
            try:
                await ask(base, data=data, model_name=model)
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == status, error
                check_named(str(error), *parts)
            else:
                raise AssertionError(f"{parts} was not refused")


async def test_no_call_of_the_clients_is_left_out(address: str) -> None:
    """A call that a new version adds fails here until there is a case for it."""
    made = {
        InferenceRESTClient: {
            "infer",
            "explain",
            "is_server_live",
            "is_server_ready",
            "is_model_ready",
            "close",
        },
        InferenceGRPCClient: {"infer", "is_server_live", "is_server_ready", "is_model_ready", "close"},
    }
    for kind, names in made.items():
        assert names == {name for name in dir(kind) if not name.startswith("_")}, kind
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30, retries=0))
    assert await rest.is_server_ready(f"http://{address}")
    # KServe V2 has no explanations, which the client says by itself.
    try:
        await rest.explain(f"http://{address}", model_name=MLP, data={"instances": []})
    except UnsupportedProtocol as error:
        check_named(str(error), "v2")
    else:
        raise AssertionError("an explanation was given")
    await rest.close()
    by_grpc = InferenceGRPCClient(address, retries=0, timeout=30)
    assert await by_grpc.is_server_ready()
    await by_grpc.close()


if __name__ == "__main__":
    report.run(dict(globals()))
