"""What tritonclient.grpc does with the server, in its blocking and its asyncio form."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import report
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
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
    opened = triton.InferenceServerClient(address)
    try:
        yield opened
    finally:
        opened.close()


def aio_client(address: str) -> Any:
    return triton_aio.InferenceServerClient(address)


def mlp_input(x: Any) -> Any:
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return made


def identity_tensors() -> list[Any]:
    made = []
    for name, tensor in identity_inputs().items():
        each = triton.InferInput(name, list(tensor.shape), DATATYPES[name])
        each.set_data_from_numpy(tensor)
        made.append(each)
    return made


def check_identity(result: Any) -> None:
    for name, tensor in identity_inputs().items():
        check_equal(result.as_numpy(f"{name}_out"), tensor)


def refusal(call: Any, code: str, *parts: str) -> None:
    error = check_raises(InferenceServerException, call, *parts)
    assert isinstance(error, InferenceServerException)
    assert error.status() == f"StatusCode.{code}", error.status()


def test_the_server_is_live_and_ready(address: str) -> None:
    with client(address) as opened:
        assert opened.is_server_live()
        assert opened.is_server_ready()
        assert opened.is_model_ready(MLP)
        assert opened.is_model_ready(MLP, "1")


def test_one_row_and_many_are_inferred(address: str) -> None:
    with client(address) as opened:
        for count in (1, 6):
            result = opened.infer(
                MLP,
                [mlp_input(rows(count))],
                outputs=[triton.InferRequestedOutput("y")],
                request_id="seven",
            )
            check_equal(result.as_numpy("y"), mlp(rows(count)))
            assert result.get_response().id == "seven"
            assert result.get_response().model_version == "1"


def test_a_model_in_a_worker_process_answers_alike(address: str) -> None:
    with client(address) as opened:
        check_equal(opened.infer(WORKER_MLP, [mlp_input(rows(3))]).as_numpy("y"), mlp(rows(3)))


def test_every_datatype_comes_back_unchanged(address: str) -> None:
    with client(address) as opened:
        check_identity(opened.infer(IDENTITY, identity_tensors()))


def test_compressed_requests_are_understood(address: str) -> None:
    with client(address) as opened:
        for coding in ("gzip", "deflate"):
            check_identity(opened.infer(IDENTITY, identity_tensors(), compression_algorithm=coding))


def test_long_messages_are_compressed_both_ways(address: str) -> None:
    x = np.zeros((2, 250_000), np.float32)
    with client(address) as opened:
        inputs = identity_tensors()
        inputs[0] = triton.InferInput("floats", list(x.shape), "FP32")
        inputs[0].set_data_from_numpy(x)
        for coding in ("gzip", "deflate"):
            check_equal(
                opened.infer(IDENTITY, inputs, compression_algorithm=coding).as_numpy("floats_out"), x
            )


def test_requests_in_flight_at_once_get_their_own_rows(address: str) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    with client(address) as opened:
        asked = [rows(8)[index : index + 1] for index in range(8)]
        for index, x in enumerate(asked):
            opened.async_infer(
                MLP,
                [mlp_input(x)],
                callback=lambda result, error, index=index: answers.put((index, result, error)),
            )
        for _ in asked:
            index, result, error = answers.get(timeout=30)
            assert error is None, error
            check_equal(result.as_numpy("y"), mlp(asked[index]))


def test_a_stream_answers_each_request_and_outlives_a_refused_one(address: str) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with client(address) as opened:
        opened.start_stream(callback=lambda result, error: answers.put((result, error)))
        opened.async_stream_infer(MLP, [mlp_input(rows(1))])
        first, error = answers.get(timeout=30)
        assert error is None, error
        check_equal(first.as_numpy("y"), mlp(rows(1)))
        opened.async_stream_infer("nobody", [mlp_input(rows(1))])
        _, error = answers.get(timeout=30)
        check_named(str(error), "nobody")
        opened.async_stream_infer(MLP, [mlp_input(rows(2))])
        third, error = answers.get(timeout=30)
        assert error is None, error
        check_equal(third.as_numpy("y"), mlp(rows(2)))
        opened.stop_stream()


def test_server_metadata_lists_extensions(address: str) -> None:
    with client(address) as opened:
        metadata = opened.get_server_metadata()
        assert metadata.name == "kingpole"
        assert metadata.version
        assert "binary_tensor_data" in metadata.extensions


def test_model_metadata_says_names_shapes_and_datatypes(address: str) -> None:
    with client(address) as opened:
        metadata = opened.get_model_metadata(MLP)
        assert metadata.name == MLP
        assert list(metadata.versions) == ["1"]
        given, output = metadata.inputs[0], metadata.outputs[0]
        assert (given.name, given.datatype, list(given.shape)) == ("x", "FP32", [-1, 4])
        assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [-1, 3])


def test_the_configuration_is_tritons(address: str) -> None:
    with client(address) as opened:
        configuration = opened.get_model_config(MLP).config
        assert configuration.name == MLP
        assert configuration.max_batch_size > 1
        assert list(configuration.input[0].dims) == [4]
        assert list(configuration.output[0].dims) == [3]
        as_json = opened.get_model_config(MLP, as_json=True)["config"]
        assert as_json["input"][0]["data_type"] == "TYPE_FP32"


def test_statistics_count_what_was_inferred(address: str) -> None:
    with client(address) as opened:
        before = opened.get_inference_statistics(MLP).model_stats[0]
        opened.infer(MLP, [mlp_input(rows(3))])
        after = opened.get_inference_statistics(MLP, "1").model_stats[0]
        assert (after.name, after.version) == (MLP, "1")
        assert after.inference_count == before.inference_count + 3
        assert after.execution_count == before.execution_count + 1
        assert after.inference_stats.success.count == before.inference_stats.success.count + 1
        assert {each.name for each in opened.get_inference_statistics().model_stats} >= {MLP, IDENTITY}


def test_the_index_lists_every_model_with_its_state(address: str) -> None:
    with client(address) as opened:
        states = {row.name: row.state for row in opened.get_model_repository_index().models}
        assert states == {MLP: "READY", WORKER_MLP: "READY", IDENTITY: "READY", COUNT: "READY"}


def test_an_unknown_model_is_refused_by_name(address: str) -> None:
    with client(address) as opened:
        refusal(lambda: opened.infer("nobody", [mlp_input(rows(1))]), "NOT_FOUND", "nobody")
        refusal(lambda: opened.get_model_metadata("nobody"), "NOT_FOUND", "nobody")
        refusal(lambda: opened.get_model_config("nobody"), "NOT_FOUND", "nobody")
        refusal(lambda: opened.get_inference_statistics("nobody"), "NOT_FOUND", "nobody")


def test_an_unknown_version_is_refused_by_number(address: str) -> None:
    with client(address) as opened:
        refusal(lambda: opened.infer(MLP, [mlp_input(rows(1))], model_version="7"), "NOT_FOUND", "7")


def test_a_wrong_shape_is_refused_naming_both_shapes(address: str) -> None:
    with client(address) as opened:
        wrong = mlp_input(np.zeros((2, 5), np.float32))
        refusal(lambda: opened.infer(MLP, [wrong]), "INVALID_ARGUMENT", "'x'", "[2,5]", "[-1,4]")


def test_an_unknown_output_is_refused_by_name(address: str) -> None:
    with client(address) as opened:
        refusal(
            lambda: opened.infer(MLP, [mlp_input(rows(1))], outputs=[triton.InferRequestedOutput("z")]),
            "INVALID_ARGUMENT",
            "'z'",
        )


async def test_the_asyncio_client_infers_and_asks(address: str) -> None:
    async with aio_client(address) as opened:
        assert await opened.is_server_live()
        assert await opened.is_server_ready()
        assert await opened.is_model_ready(MLP)
        assert (await opened.get_server_metadata()).name == "kingpole"
        assert (await opened.get_model_metadata(MLP)).name == MLP
        assert (await opened.get_model_config(MLP)).config.name == MLP
        assert (await opened.get_inference_statistics(MLP)).model_stats[0].name == MLP
        assert len((await opened.get_model_repository_index()).models) == 4
        check_equal((await opened.infer(MLP, [mlp_input(rows(4))])).as_numpy("y"), mlp(rows(4)))
        check_identity(await opened.infer(IDENTITY, identity_tensors()))


async def test_the_asyncio_client_streams(address: str) -> None:
    async def ask() -> AsyncIterator[dict[str, Any]]:
        for count in (1, 2, 3):
            yield {"model_name": MLP, "inputs": [mlp_input(rows(count))], "request_id": str(count)}

    async with aio_client(address) as opened:
        answered = set()
        async for result, error in opened.stream_infer(ask()):
            assert error is None, error
            count = int(result.get_response().id)
            check_equal(result.as_numpy("y"), mlp(rows(count)))
            answered.add(count)
        assert answered == {1, 2, 3}


async def test_the_asyncio_client_is_told_what_was_wrong(address: str) -> None:
    async with aio_client(address) as opened:
        for model, x, parts in (
            ("nobody", rows(1), ("NOT_FOUND", "nobody")),
            (MLP, np.zeros((2, 5), np.float32), ("INVALID_ARGUMENT", "'x'", "[2,5]", "[-1,4]")),
        ):
            try:
                await opened.infer(model, [mlp_input(x)])
            except InferenceServerException as error:
                check_named(str(error), *parts)
            else:
                raise AssertionError(f"{parts} was not refused")


if __name__ == "__main__":
    report.run(dict(globals()))
