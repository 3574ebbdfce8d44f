"""What tritonclient.http does with the server, in its blocking and its asyncio form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import report
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from served import (
    COUNT,
    DATATYPES,
    IDENTITY,
    MLP,
    WORKER_MLP,
    check_equal,
    check_named,
    check_raises,
    identity_inputs,
    mlp,
    rows,
)
from tritonclient.utils import InferenceServerException


@contextlib.contextmanager
def client(address: str) -> Iterator[Any]:
    opened = triton.InferenceServerClient(address, concurrency=4)
    try:
        yield opened
    finally:
        opened.close()


def aio_client(address: str) -> Any:
    return triton_aio.InferenceServerClient(address)


def mlp_input(x: Any, *, binary: bool = True) -> Any:
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x, binary_data=binary)
    return made


def identity_requests(names: list[str], *, binary: bool) -> tuple[list[Any], list[Any]]:
    inputs = []
    for name, tensor in identity_inputs().items():
        made = triton.InferInput(name, list(tensor.shape), DATATYPES[name])
        made.set_data_from_numpy(tensor, binary_data=name in names or binary)
        inputs.append(made)
    outputs = [
        triton.InferRequestedOutput(f"{name}_out", binary_data=name in names or binary) for name in DATATYPES
    ]
    return inputs, outputs


def check_identity(result: Any) -> None:
    for name, tensor in identity_inputs().items():
        check_equal(result.as_numpy(f"{name}_out"), tensor)


def test_the_server_is_live_and_ready(address: str) -> None:
    with client(address) as opened:
        assert opened.is_server_live()
        assert opened.is_server_ready()
        assert opened.is_model_ready(MLP)
        assert opened.is_model_ready(MLP, "1")
        assert not opened.is_model_ready("nobody")


def test_binary_and_json_tensors_are_inferred_alike(address: str) -> None:
    with client(address) as opened:
        for count in (1, 6):
            for binary_in in (True, False):
                for binary_out in (True, False):
                    result = opened.infer(
                        MLP,
                        [mlp_input(rows(count), binary=binary_in)],
                        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
                        request_id="seven",
                    )
                    check_equal(result.as_numpy("y"), mlp(rows(count)))
                    assert result.get_response()["id"] == "seven"
                    assert result.get_response()["model_name"] == MLP


def test_a_model_in_a_worker_process_answers_alike(address: str) -> None:
    with client(address) as opened:
        check_equal(opened.infer(WORKER_MLP, [mlp_input(rows(3))]).as_numpy("y"), mlp(rows(3)))


def test_outputs_need_not_be_asked_for(address: str) -> None:
    with client(address) as opened:
        check_equal(opened.infer(MLP, [mlp_input(rows(2))], model_version="1").as_numpy("y"), mlp(rows(2)))


def test_every_datatype_comes_back_unchanged_as_binary(address: str) -> None:
    with client(address) as opened:
        inputs, outputs = identity_requests([], binary=True)
        check_identity(opened.infer(IDENTITY, inputs, outputs=outputs))


def test_every_datatype_comes_back_unchanged_as_json(address: str) -> None:
    with client(address) as opened:
        inputs, outputs = identity_requests([], binary=False)
        check_identity(opened.infer(IDENTITY, inputs, outputs=outputs))


def test_binary_and_json_tensors_mix_in_one_request(address: str) -> None:
    with client(address) as opened:
        inputs, outputs = identity_requests(["halves", "counts"], binary=False)
        check_identity(opened.infer(IDENTITY, inputs, outputs=outputs))


def test_compressed_requests_and_responses_are_understood(address: str) -> None:
    with client(address) as opened:
        for coding in ("gzip", "deflate"):
            inputs, outputs = identity_requests([], binary=True)
            check_identity(
                opened.infer(
                    IDENTITY,
                    inputs,
                    outputs=outputs,
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
            )


def test_long_responses_come_compressed_when_that_is_asked_for(address: str) -> None:
    x = np.zeros((2, 25_000), np.float32)
    codings = []
    with client(address) as opened:
        post = opened._post

        def recording(*arguments: Any, **named: Any) -> Any:
            response = post(*arguments, **named)
            codings.append(response.get("content-encoding"))
            return response

        opened._post = recording
        for asked in ("gzip", "deflate", None):
            for binary in (True, False):
                inputs, _ = identity_requests([], binary=binary)
                inputs[0] = triton.InferInput("floats", list(x.shape), "FP32")
                inputs[0].set_data_from_numpy(x, binary_data=binary)
                outputs = [triton.InferRequestedOutput("floats_out", binary_data=binary)]
                result = opened.infer(IDENTITY, inputs, outputs=outputs, response_compression_algorithm=asked)
                check_equal(result.as_numpy("floats_out"), x)
                assert codings.pop() == asked


def test_requests_in_flight_at_once_get_their_own_rows(address: str) -> None:
    with client(address) as opened:
        asked = [rows(8)[index : index + 1] for index in range(8)]
        waiting = [opened.async_infer(MLP, [mlp_input(x)]) for x in asked]
        for x, each in zip(asked, waiting, strict=True):
            check_equal(each.get_result().as_numpy("y"), mlp(x))


def test_server_metadata_lists_extensions(address: str) -> None:
    with client(address) as opened:
        metadata = opened.get_server_metadata()
        assert metadata["name"] == "kingpole"
        assert metadata["version"]
        assert "binary_tensor_data" in metadata["extensions"]


def test_model_metadata_says_names_shapes_and_datatypes(address: str) -> None:
    with client(address) as opened:
        metadata = opened.get_model_metadata(MLP)
        assert metadata["name"] == MLP
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


def test_the_configuration_is_tritons(address: str) -> None:
    with client(address) as opened:
        configuration = opened.get_model_config(MLP)
        assert configuration["name"] == MLP
        assert configuration["max_batch_size"] > 1
        assert configuration["input"][0]["data_type"] == "TYPE_FP32"
        # Triton leaves the batch dimension out of a batching model's dims.
        assert list(map(int, configuration["input"][0]["dims"])) == [4]
        assert list(map(int, configuration["output"][0]["dims"])) == [3]


def test_statistics_count_what_was_inferred(address: str) -> None:
    with client(address) as opened:
        before = opened.get_inference_statistics(MLP)["model_stats"][0]
        opened.infer(MLP, [mlp_input(rows(3))])
        after = opened.get_inference_statistics(MLP, "1")["model_stats"][0]
        assert after["name"] == MLP
        assert after["version"] == "1"
        assert after["inference_count"] == before["inference_count"] + 3
        assert after["execution_count"] == before["execution_count"] + 1
        assert (
            after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
        )
        names = {each["name"] for each in opened.get_inference_statistics()["model_stats"]}
        assert names >= {MLP, IDENTITY, WORKER_MLP}


def test_the_index_lists_every_model_with_its_state(address: str) -> None:
    with client(address) as opened:
        states = {row["name"]: row["state"] for row in opened.get_model_repository_index()}
        assert states == {MLP: "READY", WORKER_MLP: "READY", IDENTITY: "READY", COUNT: "READY"}


def test_an_unknown_model_is_refused_by_name(address: str) -> None:
    with client(address) as opened:
        for ask in (
            lambda: opened.infer("nobody", [mlp_input(rows(1))]),
            lambda: opened.get_model_metadata("nobody"),
            lambda: opened.get_model_config("nobody"),
            lambda: opened.get_inference_statistics("nobody"),
        ):
            error = check_raises(InferenceServerException, ask, "nobody")
            assert isinstance(error, InferenceServerException)
            assert error.status() == "404"


def test_an_unknown_version_is_refused_by_number(address: str) -> None:
    with client(address) as opened:
        error = check_raises(
            InferenceServerException, lambda: opened.infer(MLP, [mlp_input(rows(1))], model_version="7"), "7"
        )
        assert isinstance(error, InferenceServerException)
        assert error.status() == "404"


def test_a_wrong_shape_is_refused_naming_both_shapes(address: str) -> None:
    with client(address) as opened:
        for binary in (True, False):
            wrong = mlp_input(np.zeros((2, 5), np.float32), binary=binary)
            error = check_raises(
                InferenceServerException, lambda x=wrong: opened.infer(MLP, [x]), "'x'", "[2,5]", "[-1,4]"
            )
            assert isinstance(error, InferenceServerException)
            assert error.status() == "400"


def test_an_unknown_output_is_refused_by_name(address: str) -> None:
    with client(address) as opened:
        check_raises(
            InferenceServerException,
            lambda: opened.infer(MLP, [mlp_input(rows(1))], outputs=[triton.InferRequestedOutput("z")]),
            "'z'",
        )


async def test_the_asyncio_client_infers_and_asks(address: str) -> None:
    async with aio_client(address) as opened:
        assert await opened.is_server_live()
        assert await opened.is_server_ready()
        assert await opened.is_model_ready(MLP)
        assert (await opened.get_server_metadata())["name"] == "kingpole"
        assert (await opened.get_model_metadata(MLP))["name"] == MLP
        assert (await opened.get_model_config(MLP))["name"] == MLP
        assert (await opened.get_inference_statistics(MLP))["model_stats"][0]["name"] == MLP
        assert len(await opened.get_model_repository_index()) == 4
        for binary in (True, False):
            result = await opened.infer(MLP, [mlp_input(rows(4), binary=binary)])
            check_equal(result.as_numpy("y"), mlp(rows(4)))
        inputs, outputs = identity_requests(["halves"], binary=False)
        check_identity(await opened.infer(IDENTITY, inputs, outputs=outputs))
        inputs, outputs = identity_requests([], binary=True)
        check_identity(await opened.infer(IDENTITY, inputs, outputs=outputs))


async def test_the_asyncio_client_is_told_what_was_wrong(address: str) -> None:
    async with aio_client(address) as opened:
        for model, x, parts in (
            ("nobody", rows(1), ("nobody",)),
            (MLP, np.zeros((2, 5), np.float32), ("'x'", "[2,5]", "[-1,4]")),
        ):
            try:
                await opened.infer(model, [mlp_input(x)])
            except InferenceServerException as error:
                check_named(str(error), *parts)
            else:
                raise AssertionError(f"{parts} was not refused")


if __name__ == "__main__":
    report.run(dict(globals()))
