"""docs/protocols.md names every call that the server answers, and no other."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import grpc
import pytest
from served_process import Served, needs_core

pytestmark = needs_core

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
# A bar inside of a table is escaped.
SPANS = {span.replace("\\|", "|") for span in re.findall(r"`([^`]+)`", PAGE)}
PLACEHOLDERS = {"model": "M", "version": "V", "label": "L", "region": "R", "repository": "REPO"}
MAIN = "inference.GRPCInferenceService"


def expanded(path: str) -> list[str]:
    """A path for each of what its brackets leave open: nothing, or one of what they hold."""
    found = re.search(r"\[([^\]]+)\]", path)
    if found is None:
        return [path]
    before, after = path[: found.start()], path[found.end() :]
    return [each for part in ("", *found.group(1).split("|")) for each in expanded(before + part + after)]


def named_routes() -> set[tuple[str, str]]:
    """Methods and paths, as the page has them: `GET, POST /v2/models/M[/versions/V]`."""
    routes = set()
    for span in SPANS:
        if found := re.fullmatch(r"((?:[A-Z]+, )*[A-Z]+) (/\S*)", span):
            methods = found.group(1).split(", ")
            routes |= {(path, method) for path in expanded(found.group(2)) for method in methods}
    return routes


def named_methods() -> set[str]:
    """gRPC's methods; those of the main service without its name."""
    full = {span for span in SPANS if re.fullmatch(r"[a-z][\w.]*\.\w+/\w+", span)}
    return full | {f"{MAIN}/{span}" for span in SPANS if f"{MAIN}/{span}" in declared_methods()}


def declared_methods() -> set[str]:
    """The methods of the services in protocol/schema."""
    methods = set()
    for schema in (ROOT / "protocol" / "schema").glob("*.proto"):
        text = schema.read_text(encoding="utf-8")
        package = re.search(r"^package ([\w.]+);", text, re.M)
        assert package, schema
        for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", text, re.M | re.S):
            methods |= {f"{package.group(1)}.{service}/{rpc}" for rpc in re.findall(r"rpc (\w+)", body)}
    return methods


def test_every_route_is_named_and_no_other() -> None:
    routes = set()
    for path, methods in importlib.import_module("kingpole._core").http_routes():
        for name, placeholder in PLACEHOLDERS.items():
            path = path.replace(f"{{{name}}}", placeholder)
        routes |= {(path, method) for method in methods}
    assert named_routes() == routes


def test_every_method_of_the_schemas_is_named() -> None:
    assert declared_methods() >= {f"{MAIN}/ModelInfer", "kingpole.v1.Inference/Stream"}
    assert declared_methods() <= named_methods()


def answer(channel: grpc.Channel, method: str) -> tuple[grpc.StatusCode | None, str]:
    """Call with an empty message, and give the error's code and text; None if something is answered."""
    call = channel.stream_stream(f"/{method}")(iter([b""]), timeout=10)
    try:
        next(call)
    except StopIteration:
        return None, ""
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    finally:
        call.cancel()
    return None, ""


@pytest.mark.parametrize("method", sorted(named_methods() | declared_methods()))
def test_a_method_is_offered_if_the_schemas_have_it(described: Served, method: str) -> None:
    with grpc.insecure_channel(described.url.removeprefix("http://")) as channel:
        code, text = answer(channel, method)
        is_refused = code is grpc.StatusCode.UNIMPLEMENTED and text.startswith(f"the method '/{method}'")
        assert is_refused == (method not in declared_methods()), (code, text)
        assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED), text
