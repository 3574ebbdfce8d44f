"""tritonclient loads and unloads models, in its four forms, with configurations and files of its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import report
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as http_aio
from served import IDENTITY, MLP, check_equal, check_named, mlp, rows
from tritonclient.utils import InferenceServerException
from tritonclient_forms import PLUS_ONE, settled

FORMS = [(over_http, over_http), (http_aio, over_http), (over_grpc, over_grpc), (grpc_aio, over_grpc)]
# What the other forms must not find loaded already.
BROUGHT = "brought"


@contextlib.asynccontextmanager
async def clients(address: str) -> AsyncIterator[list[tuple[Any, Any]]]:
    """Each client with the module of its requests."""
    opened = [(form.InferenceServerClient(address), requests) for form, requests in FORMS]
    try:
        yield opened
    finally:
        for client, _ in opened:
            await settled(client.close())


async def index(client: Any) -> dict[str, tuple[str, str]]:
    told = await settled(client.get_model_repository_index())
    if isinstance(told, list):
        return {row["name"]: (row["state"], row["reason"]) for row in told}
    return {row.name: (row.state, row.reason) for row in told.models}


async def wait_unloaded(client: Any, model: str) -> None:
    deadline = time.monotonic() + 30
    while (await index(client))[model] != ("UNAVAILABLE", "unloaded"):
        assert time.monotonic() < deadline, await index(client)


async def refusal(call: Any, statuses: tuple[str, ...], *parts: str) -> None:
    try:
        await settled(call())
    except InferenceServerException as error:
        check_named(str(error), *parts)
        assert error.status() in statuses, error.status()
    else:
        raise AssertionError(f"{parts} was not refused")


async def infer(client: Any, requests: Any, model: str, x: Any) -> Any:
    given = requests.InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x)
    return (await settled(client.infer(model, [given]))).as_numpy("y")


async def test_a_model_is_unloaded_and_loaded_again(address: str) -> None:
    async with clients(address) as opened:
        for client, requests in opened:
            await settled(client.unload_model(MLP))
            assert not await settled(client.is_model_ready(MLP))
            await wait_unloaded(client, MLP)
            await settled(client.load_model(MLP))
            assert (await index(client))[MLP] == ("READY", "")
            check_equal(await infer(client, requests, MLP, rows(2)), mlp(rows(2)))


async def test_a_configuration_can_come_with_the_load(address: str) -> None:
    async with clients(address) as opened:
        for size, (client, _) in enumerate(opened, start=3):
            # Numbers of 64 bits are texts in protobuf's JSON.
            await settled(client.load_model(MLP, config=json.dumps({"max_batch_size": str(size)})))
            told = await settled(client.get_model_config(MLP))
            given = told["max_batch_size"] if isinstance(told, dict) else told.config.max_batch_size
            assert given == size
            await settled(client.load_model(MLP))


async def test_files_can_come_with_the_load(address: str) -> None:
    config = json.dumps({"backend": "python", "max_batch_size": 8})
    async with clients(address) as opened:
        for client, requests in opened:
            files = {"file:1/model.py": PLUS_ONE}
            await settled(client.load_model(BROUGHT, config=config, files=files))
            check_equal(await infer(client, requests, BROUGHT, rows(2)), rows(2) + 1)
            await settled(client.unload_model(BROUGHT, unload_dependents=True))
            await wait_unloaded(client, BROUGHT)
            await refusal(
                lambda client=client, requests=requests: infer(client, requests, BROUGHT, rows(1)),
                ("404", "StatusCode.NOT_FOUND"),
                BROUGHT,
            )


async def test_why_a_load_failed_is_told(address: str) -> None:
    bad = ("400", "StatusCode.INVALID_ARGUMENT")
    failed = ("409", "StatusCode.FAILED_PRECONDITION")
    async with clients(address) as opened:
        for client, _ in opened:
            for model, config, files, statuses, part in (
                ("nowhere", None, None, ("404", "StatusCode.NOT_FOUND"), "no such model"),
                (MLP, "{", None, bad, "no JSON"),
                (MLP, '{"input": [{"name": "x", "data_type": "TYPE_FP23"}]}', None, bad, "FP23"),
                (MLP, '{"input": [{"name": "q", "dims": [4]}]}', None, failed, "'q'"),
                (
                    "b",
                    '{"backend": "python"}',
                    {"file:1/model.py": b"raise OSError('Tuesday')"},
                    failed,
                    "Tuesday",
                ),
                ("b", '{"backend": "python"}', {"file:../x": b"x"}, bad, "file:../x"),
            ):
                await refusal(
                    lambda client=client, model=model, config=config, files=files: client.load_model(
                        model, config=config, files=files
                    ),
                    statuses,
                    part,
                )
            assert (await index(client))[MLP] == ("READY", ""), "what was served before stays"


async def test_unloading_what_is_not_there_is_no_error(address: str) -> None:
    async with clients(address) as opened:
        for client, _ in opened:
            await settled(client.unload_model("nowhere"))


async def test_the_index_lists_the_others_all_the_while(address: str) -> None:
    async with clients(address) as opened:
        for client, _ in opened:
            assert (await index(client))[IDENTITY] == ("READY", "")


if __name__ == "__main__":
    report.run(dict(globals()))
