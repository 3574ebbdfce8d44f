"""The rest of tritonclient's public calls: every argument, plugins, classes, settings and statistics.

Streams and shared memory have programs of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import report
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.grpc.auth as grpc_auth
import tritonclient.http as over_http
import tritonclient.http.aio as http_aio
import tritonclient.http.auth as http_auth
from served import IDENTITY, LABELS, MLP, WORKER_MLP, check_equal, check_raises, classes, mlp, rows
from tritonclient.utils import InferenceServerException

# In microseconds: the extension's unit.
TEN_SECONDS = 10_000_000
OWN = {"text": "a", "number": 3, "flag": True, "share": 0.5}


def beside() -> dict[str, Any]:
    """What a request says beside its tensors, made anew: the client writes into the headers it is given."""
    headers = {"x-request-id": "seven", "authorization": "Bearer abc"}
    return {"priority": 1, "timeout": TEN_SECONDS, "headers": headers}


@contextlib.contextmanager
def both(address: str) -> Iterator[list[tuple[Any, Any]]]:
    """The two blocking clients, each with its module."""
    with contextlib.ExitStack() as stack:
        opened = []
        for module in (over_http, over_grpc):
            client = module.InferenceServerClient(address)
            stack.callback(client.close)
            opened.append((module, client))
        yield opened


def mlp_input(module: Any, x: Any) -> Any:
    made = module.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return made


def plain(given: Any) -> Any:
    """A message of gRPC as what HTTP gives."""
    if isinstance(given, (dict, list)):
        return given
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(given, preserving_proto_field_name=True)


def refusal(call: Any, http: str, grpc: str, *parts: str) -> None:
    error = check_raises(InferenceServerException, call, *parts)
    assert isinstance(error, InferenceServerException)
    assert error.status() in (http, f"StatusCode.{grpc}"), error.status()


def test_every_argument_of_an_inference_is_understood(address: str) -> None:
    with both(address) as clients:
        for module, client in clients:
            result = client.infer(
                MLP,
                [mlp_input(module, rows(2))],
                model_version="1",
                outputs=[module.InferRequestedOutput("y")],
                request_id="a",
                parameters=OWN,
                **beside(),
            )
            check_equal(result.as_numpy("y"), mlp(rows(2)))
            assert result.get_output("y") is not None
            assert result.get_output("z") is None


def test_query_parameters_and_compression_change_nothing(address: str) -> None:
    with both(address) as clients:
        (_, http), (_, grpc) = clients
        for coding in (None, "gzip", "deflate"):
            result = http.infer(
                MLP,
                [mlp_input(over_http, rows(3))],
                query_params={"a": "b c", "n": 1},
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            check_equal(result.as_numpy("y"), mlp(rows(3)))
            result = grpc.infer(
                MLP, [mlp_input(over_grpc, rows(3))], compression_algorithm=coding, client_timeout=10.0
            )
            check_equal(result.as_numpy("y"), mlp(rows(3)))


def test_a_request_can_be_made_and_its_answer_read_without_the_client(address: str) -> None:
    import urllib.request

    client = over_http.InferenceServerClient
    body, header_length = client.generate_request_body([mlp_input(over_http, rows(2))], request_id="b")
    headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
    request = urllib.request.Request(f"http://{address}/v2/models/{MLP}/infer", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        told = answer.headers.get("Inference-Header-Content-Length")
        length = None if told is None else int(told)
        result = client.parse_response_body(answer.read(), header_length=length)
    check_equal(result.as_numpy("y"), mlp(rows(2)))


def test_a_timeout_that_has_passed_is_told_as_such(address: str) -> None:
    with both(address) as clients:
        for module, client in clients:
            refusal(
                lambda client=client, module=module: client.infer(
                    WORKER_MLP, [mlp_input(module, rows(1))], timeout=1
                ),
                "504",
                "DEADLINE_EXCEEDED",
                "deadline",
            )


def test_the_highest_classes_come_with_their_labels(address: str) -> None:
    x = rows(3)
    with both(address) as clients:
        for module, client in clients:
            for model in (MLP, WORKER_MLP):
                output = module.InferRequestedOutput("y", class_count=2)
                given = client.infer(model, [mlp_input(module, x)], outputs=[output]).as_numpy("y")
                assert [[each.decode() for each in row] for row in given] == classes(x, 2)
            more = module.InferRequestedOutput("y", class_count=9)
            given = client.infer(MLP, [mlp_input(module, x)], outputs=[more]).as_numpy("y")
            assert given.shape == (3, len(LABELS)), "no more than there are"


def test_classes_of_what_has_none_are_refused(address: str) -> None:
    tensor = np.array([["a"]], dtype=object)
    with both(address) as clients:
        for module, client in clients:
            made = module.InferInput("texts", [1, 1], "BYTES")
            made.set_data_from_numpy(tensor)
            output = module.InferRequestedOutput("texts_out", class_count=1)
            refusal(
                lambda client=client, made=made, output=output: client.infer(
                    IDENTITY, [made], outputs=[output]
                ),
                "400",
                "INVALID_ARGUMENT",
                "'texts_out'",
                "BYTES",
            )


def test_credentials_of_a_plugin_pass_through(address: str) -> None:
    with both(address) as clients:
        for (_, client), auth in zip(clients, (http_auth, grpc_auth), strict=True):
            plugin = auth.BasicAuth("user", "password")
            client.register_plugin(plugin)
            assert client.plugin() is plugin
            assert client.is_server_ready()
            assert plain(client.get_server_metadata())["name"] == "kingpole"
            client.unregister_plugin()


def test_the_extensions_are_those_that_are_offered(address: str) -> None:
    with both(address) as clients:
        told = [list(plain(client.get_server_metadata())["extensions"]) for _, client in clients]
        assert told[0] == told[1]
        offered = {"classification", "model_repository", "model_configuration", "statistics", "logging",
                   "binary_tensor_data", "parameters", "schedule_policy", "sequence"}  # fmt: skip
        assert offered <= set(told[0]), told[0]
        assert "trace" not in told[0], "it needs --trace-file"


def test_the_configuration_is_the_same_by_http_and_by_grpc(address: str) -> None:
    with both(address) as clients:
        (_, http), (_, grpc) = clients
        told = http.get_model_config(MLP, "1")
        again = grpc.get_model_config(MLP, "1").config
        assert told["name"] == again.name == MLP
        assert told["max_batch_size"] == again.max_batch_size > 0
        assert told["output"][0]["label_filename"] == again.output[0].label_filename == "labels.txt"
        assert again.WhichOneof("scheduling_choice") == "dynamic_batching"
        policy = told["dynamic_batching"]["default_queue_policy"]
        assert policy["allow_timeout_override"] is True
        assert again.dynamic_batching.default_queue_policy.allow_timeout_override
        assert told["model_transaction_policy"] == {"decoupled": False}
        assert again.HasField("model_transaction_policy")
        assert again.instance_group[0].count == told["instance_group"][0]["count"]
        assert again.version_policy.latest.num_versions == 1


def test_statistics_add_up(address: str) -> None:
    with both(address) as clients:
        for count in (1, 4, 4):
            for module, client in clients:
                client.infer(WORKER_MLP, [mlp_input(module, rows(count))])
        told = [plain(client.get_inference_statistics(WORKER_MLP))["model_stats"][0] for _, client in clients]
    for each in told:
        batches = [
            (int(batch["batch_size"]), int(batch["compute_infer"]["count"])) for batch in each["batch_stats"]
        ]
        assert sum(size * count for size, count in batches) == int(each["inference_count"])
        assert sum(count for _, count in batches) == int(each["execution_count"])
        spent = each["inference_stats"]
        succeeded = int(spent["success"]["count"])
        for part in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert int(spent[part]["count"]) == succeeded, part
        parts = int(spent["queue"]["ns"]) + int(spent["compute_infer"]["ns"])
        assert 0 < parts <= int(spent["success"]["ns"])
        assert int(each["last_inference"]) > 0
    assert told[0]["inference_count"] == int(told[1]["inference_count"])


def test_statistics_of_what_is_not_there_are_not_found(address: str) -> None:
    with both(address) as clients:
        for _, client in clients:
            refusal(
                lambda client=client: client.get_inference_statistics("nobody"), "404", "NOT_FOUND", "nobody"
            )
            refusal(
                lambda client=client: client.get_inference_statistics(MLP, "7"), "404", "NOT_FOUND", "'7'"
            )


def test_log_settings_are_told_and_changed(address: str) -> None:
    with both(address) as clients:
        (_, http), (_, grpc) = clients
        assert http.get_log_settings()["log_format"] == "default"
        assert http.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
        assert grpc.get_log_settings().settings["log_verbose_level"].uint32_param == 1
        told = grpc.update_log_settings({"log_verbose_level": 0, "log_warning": True}, as_json=True)
        assert "log_verbose_level" in told["settings"]
        for _, client in clients:
            refusal(
                lambda client=client: client.update_log_settings({"log_file": "/tmp/x"}),
                "501",
                "UNIMPLEMENTED",
                "log_file",
            )
            refusal(
                lambda client=client: client.update_log_settings({"log_colour": True}),
                "400",
                "INVALID_ARGUMENT",
                "log_colour",
            )


def test_trace_settings_say_that_nothing_is_traced_without_a_file(address: str) -> None:
    with both(address) as clients:
        (_, http), (_, grpc) = clients
        for model in (None, MLP):
            assert http.get_trace_settings(model)["trace_level"] == ["OFF"]
            assert list(grpc.get_trace_settings(model).settings["trace_level"].value) == ["OFF"]
        for _, client in clients:
            client.update_trace_settings(settings={"trace_level": ["OFF"]})
            client.update_trace_settings(settings={"trace_level": None})
            for settings in ({"trace_level": ["TIMESTAMPS"]}, {"trace_file": "x"}, {"log_frequency": "1"}):
                refusal(
                    lambda client=client, settings=settings: client.update_trace_settings(MLP, settings),
                    "501",
                    "UNIMPLEMENTED",
                    next(iter(settings)),
                )
            refusal(lambda client=client: client.get_trace_settings("nobody"), "404", "NOT_FOUND", "nobody")


def test_no_region_of_shared_memory_is_registered_over_grpc(address: str) -> None:
    with both(address) as clients:
        grpc = clients[1][1]
        assert not grpc.get_system_shared_memory_status().regions
        assert not grpc.get_cuda_shared_memory_status().regions


def test_inferences_asked_for_at_once_are_answered_with_their_arguments(address: str) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    http = over_http.InferenceServerClient(address, concurrency=4)
    grpc = over_grpc.InferenceServerClient(address)
    try:
        waiting = [
            http.async_infer(MLP, [mlp_input(over_http, rows(2))], request_id=str(index), **beside())
            for index in range(4)
        ]
        for index, each in enumerate(waiting):
            result = each.get_result(timeout=30)
            assert result.get_response()["id"] == str(index)
            check_equal(result.as_numpy("y"), mlp(rows(2)))
        call = grpc.async_infer(
            MLP,
            [mlp_input(over_grpc, rows(2))],
            callback=lambda result, error: answers.put((result, error)),
            parameters=OWN,
            client_timeout=30,
            **beside(),
        )
        result, error = answers.get(timeout=30)
        assert error is None, error
        check_equal(result.as_numpy("y"), mlp(rows(2)))
        # Too late to change anything, and no error.
        call.cancel()
    finally:
        http.close()
        grpc.close()


async def test_the_asyncio_clients_do_the_same(address: str) -> None:
    for module, requests in ((http_aio, over_http), (grpc_aio, over_grpc)):
        async with module.InferenceServerClient(address) as client:
            result = await client.infer(
                MLP, [mlp_input(requests, rows(2))], request_id="a", parameters=OWN, **beside()
            )
            check_equal(result.as_numpy("y"), mlp(rows(2)))
            output = requests.InferRequestedOutput("y", class_count=1)
            given = (await client.infer(MLP, [mlp_input(requests, rows(2))], outputs=[output])).as_numpy("y")
            assert [[each.decode() for each in row] for row in given] == classes(rows(2), 1)
            assert await client.is_model_ready(MLP, "1")
            await client.get_log_settings()
            await client.update_log_settings({"log_info": True})
            await client.get_trace_settings(MLP)
            await client.update_trace_settings(settings={"trace_level": ["OFF"]})
            each = [client.infer(MLP, [mlp_input(requests, rows(count))]) for count in (1, 2, 3)]
            for count, result in zip((1, 2, 3), await asyncio.gather(*each), strict=True):
                check_equal(result.as_numpy("y"), mlp(rows(count)))


if __name__ == "__main__":
    report.run(dict(globals()))
