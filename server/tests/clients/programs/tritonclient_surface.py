"""Every public call of tritonclient's clients, one method here for each of its names, in all four forms.

What is public is asked of the library itself, so that a call which a new version adds fails here until
somebody says what the server makes of it. That a method really makes the call that it is named after is
recorded.
"""

from __future__ import annotations

import asyncio
import json
import queue
import urllib.request
import uuid
from typing import Any

import numpy as np
import report
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.grpc.auth as grpc_auth
import tritonclient.http as over_http
import tritonclient.http.aio as http_aio
import tritonclient.http.auth as http_auth
import tritonclient.utils.shared_memory as shm
from recording import made, public, record
from served import COUNT, IDENTITY, MLP, check_equal, check_named, mlp, rows
from tritonclient.utils import InferenceServerException
from tritonclient_forms import PLUS_ONE, settled

SECONDS = 30
# A module of the client, that of its tensors, and that of its plugins' credentials.
FORMS = {
    "http": (over_http, over_http, http_auth),
    "http.aio": (http_aio, over_http, http_auth),
    "grpc": (over_grpc, over_grpc, grpc_auth),
    "grpc.aio": (grpc_aio, over_grpc, grpc_auth),
}
# Calls that are made, and that this server refuses: with these statuses, and words that say why.
UNIMPLEMENTED = ("501", "StatusCode.UNIMPLEMENTED")
NOT_FOUND = ("404", "StatusCode.NOT_FOUND")


def plain(given: Any) -> Any:
    """A message of gRPC as what HTTP gives."""
    if isinstance(given, (dict, list)):
        return given
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(given, preserving_proto_field_name=True)


class Plugin(over_http.InferenceServerClientPlugin):  # type: ignore[misc]
    """Adds a header, as credentials of one's own do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __call__(self, request: Any) -> None:
        self.asked += 1
        request.headers["x-own"] = "seven"


class OfClient:
    """The methods of `InferenceServerClient`, named as there."""

    def __init__(self, form: str, address: str) -> None:
        self.form, self.address = form, address
        self.module, self.tensors, self.auth = FORMS[form]
        self._client: Any = None

    async def __aenter__(self) -> OfClient:
        self._client = self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await settled(self._client.close())

    def _open(self, **options: Any) -> Any:
        return self.module.InferenceServerClient(self.address, **options)

    def _x(self, count: int = 2) -> list[Any]:
        given = self.tensors.InferInput("x", [count, 4], "FP32")
        given.set_data_from_numpy(rows(count))
        return [given]

    async def _ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        return await settled(getattr(self._client, name)(*arguments, **named))

    async def _told(self, name: str, *arguments: Any, **named: Any) -> Any:
        return plain(await self._ask(name, *arguments, **named))

    async def _refused(self, statuses: tuple[str, ...], words: str, name: str, *arguments: Any) -> None:
        try:
            await self._ask(name, *arguments)
        except InferenceServerException as error:
            assert error.status() in statuses, error.status()
            check_named(error.message(), words)
        else:
            raise AssertionError(f"{name}{arguments} was not refused")

    async def is_server_live(self) -> None:
        assert await self._ask("is_server_live") is True

    async def is_server_ready(self) -> None:
        assert await self._ask("is_server_ready") is True

    async def is_model_ready(self) -> None:
        assert await self._ask("is_model_ready", MLP) is True
        assert await self._ask("is_model_ready", MLP, "1") is True
        if self.form.startswith("http"):
            assert await self._ask("is_model_ready", "nobody") is False
        else:
            await self._refused(NOT_FOUND, "nobody", "is_model_ready", "nobody")

    async def get_server_metadata(self) -> None:
        told = await self._told("get_server_metadata")
        assert told["name"] == "kingpole"
        assert {"system_shared_memory", "model_repository"} <= set(told["extensions"])

    async def get_model_metadata(self) -> None:
        for version in ("", "1"):
            told = await self._told("get_model_metadata", MLP, version)
            assert [int(size) for size in told["inputs"][0]["shape"]] == [-1, 4]
        await self._refused(NOT_FOUND, "nobody", "get_model_metadata", "nobody")

    async def get_model_config(self) -> None:
        told = await self._told("get_model_config", MLP, "1")
        told = told.get("config", told)
        assert told["input"][0]["data_type"] == "TYPE_FP32"
        await self._refused(NOT_FOUND, "nobody", "get_model_config", "nobody")

    async def get_inference_statistics(self) -> None:
        assert (await self._told("get_inference_statistics", MLP))["model_stats"][0]["name"] == MLP
        every = (await self._told("get_inference_statistics"))["model_stats"]
        assert {each["name"] for each in every} >= {MLP, IDENTITY, COUNT}
        await self._refused(NOT_FOUND, "nobody", "get_inference_statistics", "nobody")

    async def get_model_repository_index(self) -> None:
        told = await self._told("get_model_repository_index")
        listed = told if isinstance(told, list) else told["models"]
        assert {row["name"]: row["state"] for row in listed}[MLP] == "READY"

    async def load_model(self) -> None:
        config = json.dumps({"backend": "python", "max_batch_size": 4})
        await self._ask("load_model", "surface", config=config, files={"file:1/model.py": PLUS_ONE})
        given = await self._ask("infer", "surface", self._x())
        check_equal(given.as_numpy("y"), rows(2) + 1)
        await self._refused(NOT_FOUND, "no such model", "load_model", "nowhere")

    async def unload_model(self) -> None:
        await self._ask("unload_model", "surface", unload_dependents=True)
        await self._ask("unload_model", "nowhere")
        deadline = asyncio.get_running_loop().time() + SECONDS
        while True:
            told = await self._told("get_model_repository_index")
            listed = told if isinstance(told, list) else told["models"]
            if {row["name"]: row["state"] for row in listed}["surface"] == "UNAVAILABLE":
                return
            assert asyncio.get_running_loop().time() < deadline

    async def get_log_settings(self) -> None:
        told = await self._told("get_log_settings")
        assert "log_verbose_level" in told.get("settings", told)

    async def update_log_settings(self) -> None:
        await self._ask("update_log_settings", {"log_info": True, "log_verbose_level": 0})
        await self._refused(UNIMPLEMENTED, "log_file", "update_log_settings", {"log_file": "/tmp/x"})

    async def get_trace_settings(self) -> None:
        for model in (None, MLP):
            told = await self._told("get_trace_settings", model)
            level = told.get("settings", told)["trace_level"]
            assert (level if isinstance(level, list) else level["value"]) == ["OFF"]

    async def update_trace_settings(self) -> None:
        await self._ask("update_trace_settings", MLP, {"trace_level": ["OFF"]})
        wanted = {"trace_level": ["TIMESTAMPS"]}
        await self._refused(UNIMPLEMENTED, "trace_level", "update_trace_settings", MLP, wanted)

    async def register_system_shared_memory(self) -> None:
        name = f"kingpole_surface_{uuid.uuid4().hex}"
        region = shm.create_shared_memory_region(name, f"/{name}", 64)
        try:
            await self._ask("register_system_shared_memory", name, f"/{name}", 32, offset=16)
            again = ("400", "StatusCode.ALREADY_EXISTS")
            await self._refused(again, name, "register_system_shared_memory", name, f"/{name}", 32)
            told = await self._told("get_system_shared_memory_status", name)
            row = told[0] if isinstance(told, list) else told["regions"][name]
            assert (int(row["offset"]), int(row["byte_size"])) == (16, 32)
            await self._ask("unregister_system_shared_memory", name)
        finally:
            shm.destroy_shared_memory_region(region)

    async def get_system_shared_memory_status(self) -> None:
        told = await self._told("get_system_shared_memory_status")
        assert told in ([], {}), "all are unregistered"
        await self._refused(NOT_FOUND, "nobody", "get_system_shared_memory_status", "nobody")

    async def unregister_system_shared_memory(self) -> None:
        await self._ask("unregister_system_shared_memory", "nobody")
        await self._ask("unregister_system_shared_memory")

    async def register_cuda_shared_memory(self) -> None:
        handle = b"QUFBQQ=="
        await self._refused(UNIMPLEMENTED, "no CUDA", "register_cuda_shared_memory", "gpu", handle, 0, 8)

    async def get_cuda_shared_memory_status(self) -> None:
        assert await self._told("get_cuda_shared_memory_status") in ([], {})

    async def unregister_cuda_shared_memory(self) -> None:
        await self._ask("unregister_cuda_shared_memory", "gpu")
        await self._ask("unregister_cuda_shared_memory")

    async def register_plugin(self) -> None:
        plugin = Plugin()
        self._client.register_plugin(plugin)
        await self._ask("is_server_live")
        await self._ask("infer", MLP, self._x())
        assert plugin.asked == 2
        self._client.unregister_plugin()

    async def plugin(self) -> None:
        plugin = self.auth.BasicAuth("user", "password")
        self._client.register_plugin(plugin)
        assert self._client.plugin() is plugin
        await self._ask("is_server_ready")
        self._client.unregister_plugin()

    async def unregister_plugin(self) -> None:
        plugin = Plugin()
        self._client.register_plugin(plugin)
        self._client.unregister_plugin()
        assert await self._ask("is_server_live")
        assert plugin.asked == 0
        assert self._client.plugin() is None

    async def infer(self) -> None:
        given = await self._ask("infer", MLP, self._x(), request_id="a", priority=1, timeout=10_000_000)
        check_equal(given.as_numpy("y"), mlp(rows(2)))
        await self._refused(NOT_FOUND, "nobody", "infer", "nobody", self._x())

    async def async_infer(self) -> None:
        if self.form == "http":
            given = self._client.async_infer(MLP, self._x()).get_result(timeout=SECONDS)
        else:
            said: queue.Queue[Any] = queue.Queue()
            self._client.async_infer(MLP, self._x(), lambda result, error: said.put((result, error)))
            given, error = said.get(timeout=SECONDS)
            assert error is None, error
        check_equal(given.as_numpy("y"), mlp(rows(2)))

    async def start_stream(self) -> None:
        said: queue.Queue[Any] = queue.Queue()
        self._client.start_stream(
            lambda result, error: said.put((result, error)), stream_timeout=SECONDS, headers={"a": "b"}
        )
        count = self.tensors.InferInput("count", [1], "INT32")
        count.set_data_from_numpy(np.array([2], np.int32))
        self._client.async_stream_infer(COUNT, [count], request_id="s", enable_empty_final_response=True)
        values = []
        while True:
            result, error = said.get(timeout=SECONDS)
            assert error is None, error
            if result.get_response().parameters["triton_final_response"].bool_param:
                break
            values.append(int(result.as_numpy("value")[0]))
        assert values == [0, 1]
        self._client.stop_stream()

    # One stream is all three.
    async_stream_infer = stop_stream = start_stream

    async def stream_infer(self) -> None:
        async def asked() -> Any:
            for count in (1, 2):
                yield {"model_name": MLP, "inputs": self._x(count), "request_id": str(count)}

        stream = self._client.stream_infer(asked(), stream_timeout=SECONDS)
        answered = [result.get_response().id async for result, error in stream if error is None]
        assert answered == ["1", "2"]

    async def generate_request_body(self) -> None:
        client = self.module.InferenceServerClient
        body, length = client.generate_request_body(self._x(), request_id="b", parameters={"own": 1})
        headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
        asked = urllib.request.Request(f"http://{self.address}/v2/models/{MLP}/infer", body, headers)
        with await asyncio.to_thread(urllib.request.urlopen, asked, timeout=SECONDS) as answer:
            told = answer.headers.get("Inference-Header-Content-Length")
            length = None if told is None else int(told)
            result = client.parse_response_body(answer.read(), header_length=length)
        check_equal(result.as_numpy("y"), mlp(rows(2)))

    parse_response_body = generate_request_body

    async def close(self) -> None:
        if self.form.startswith("grpc"):
            options = {"keepalive_options": over_grpc.KeepAliveOptions(keepalive_time_ms=60_000)}
        else:
            options = {"conn_timeout": SECONDS} if self.form == "http.aio" else {"network_timeout": SECONDS}
        opened = self._open(**options)
        assert await settled(opened.is_server_live())
        await settled(opened.close())


async def exercise(address: str, form: str) -> None:
    """Make every public call of one form of the client, and see that it was made."""
    names = public(FORMS[form][0].InferenceServerClient)
    unknown = names - public(OfClient)
    assert not unknown, f"nobody says what the server makes of {sorted(unknown)}"
    async with OfClient(form, address) as client:
        for name in sorted(names):
            await getattr(client, name)()
            assert (form, name) in made, f"{name} was not called"


async def test_every_call_of_the_http_client(address: str) -> None:
    await exercise(address, "http")


async def test_every_call_of_the_http_aio_client(address: str) -> None:
    await exercise(address, "http.aio")


async def test_every_call_of_the_grpc_client(address: str) -> None:
    await exercise(address, "grpc")


async def test_every_call_of_the_grpc_aio_client(address: str) -> None:
    await exercise(address, "grpc.aio")


def test_no_method_here_is_of_a_call_that_is_gone(address: str) -> None:
    names = set().union(*(public(module.InferenceServerClient) for module, _, _ in FORMS.values()))
    assert public(OfClient) == names, address


if __name__ == "__main__":
    for form, (module, _, _) in FORMS.items():
        record(module.InferenceServerClient, form)
    report.run(dict(globals()))
