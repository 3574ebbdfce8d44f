"""Our client and a foreign one in one process: `neighbors.py ADDRESS FOREIGN FIRST`.

FIRST says which of the two is imported first, `kingpole_client` or the foreign one. Both then infer, over
gRPC and over HTTP, one between the other's calls.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys
from typing import Any

from served import MLP, check_equal, mlp, rows


def import_ours() -> Any:
    """Every module of our client, also those that it loads only when they are used."""
    client = importlib.import_module("kingpole_client")
    for module in pkgutil.walk_packages(client.__path__, "kingpole_client."):
        importlib.import_module(module.name)
    return client


def import_foreign(name: str) -> Any:
    """The foreign client with its generated protobuf classes."""
    modules = {"tritonclient": ("tritonclient.grpc", "tritonclient.http"), "kserve": ("kserve",)}[name]
    return [importlib.import_module(module) for module in modules]


def infer_by_tritonclient(address: str, modules: Any) -> list[Any]:
    """The answers of its gRPC and its HTTP client to two rows."""
    answers = []
    for module in modules:
        client = module.InferenceServerClient(address)
        given = module.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(rows(2))
        answers.append(client.infer(MLP, [given]).as_numpy("y"))
        client.close()
    return answers


def infer_by_kserve(address: str, modules: Any) -> list[Any]:
    """The answers of its gRPC and its REST client to two rows."""
    (kserve,) = modules
    rest = importlib.import_module("kserve.inference_client")
    given = kserve.InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(rows(2))

    async def ask() -> list[Any]:
        async with kserve.InferenceGRPCClient(address) as grpc:
            over_grpc = await grpc.infer(kserve.InferRequest(MLP, [given]))
        async with kserve.InferenceRESTClient(rest.RESTConfig(protocol="v2", timeout=30)) as http:
            request = kserve.InferRequest(MLP, [given])
            over_http = await http.infer(f"http://{address}", request, model_name=MLP)
        return [answer.outputs[0].as_numpy() for answer in (over_grpc, over_http)]

    return asyncio.run(ask())


def infer_by_ours(address: str, client: Any) -> list[Any]:
    """The answers over gRPC and HTTP, from the blocking and the awaited client."""
    answers = []
    for scheme in ("grpc", "http"):
        with client.connect(f"{scheme}://{address}") as opened:
            answers.append(opened.infer(MLP, {"x": rows(2)})["y"])
            assert MLP in [row.name for row in opened.models()]

        async def ask(url: str = f"{scheme}://{address}") -> Any:
            async with await client.aconnect(url) as opened:
                return (await opened.infer(MLP, {"x": rows(2)}))["y"]

        answers.append(asyncio.run(ask()))
    return answers


def main(address: str, foreign: str, first: str) -> None:
    """Import in the order asked for, and demand the right answers from everybody."""
    ours = import_ours() if first == "kingpole_client" else None
    theirs = import_foreign(foreign)
    ours = ours or import_ours()
    infer_foreign = {"tritonclient": infer_by_tritonclient, "kserve": infer_by_kserve}[foreign]
    answers = [*infer_by_ours(address, ours), *infer_foreign(address, theirs), *infer_by_ours(address, ours)]
    assert len(answers) == 10
    for answer in answers:
        check_equal(answer, mlp(rows(2)))
    print(f"{len(answers)} answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
