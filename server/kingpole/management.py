"""The management listener: metrics, the repository, statistics and documentation, on a port of its own.

It is for operators: localhost unless told otherwise. A browser may read it, but no page of another origin.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kingpole.lifecycle import ControlError, Lifecycle, Version
from kingpole.openapi.document import make_document
from kingpole.openapi.models import ServedModel, UnservedModel, example_request
from kingpole.openapi.page import PAGE_HEADERS, make_page
from kingpole.openapi.table import ROUTES
from kingpole.signature import TensorSpec

if TYPE_CHECKING:  # aiohttp is 20 MB: loaded only by a server that listens here
    from aiohttp import web

_STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "FAILED_PRECONDITION": 409, "UNAVAILABLE": 503}
_BODY_BYTES = 1 << 20


class Reporting(Protocol):
    """What management reads from the core."""

    def metrics(self) -> str:
        """Everything counted, for Prometheus."""
        ...

    def statistics(self) -> bytes:
        """Counters by model, as JSON."""
        ...


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def make_application(
    core: Reporting, lifecycle: Lifecycle, *, main: Sequence[str] = (), local: bool = True
) -> web.Application:
    """Make the application: a handler for each row of the table of routes.

    Args:
        core: Where metrics come from.
        lifecycle: What loads and unloads.
        main: URLs of the main port, for the documentation.
        local: Refuse requests that name another host, which a page in a browser could
            have been tricked into (DNS rebinding).
    """
    from aiohttp import web

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Origin" in request.headers:
            return web.json_response({"error": "not for browsers"}, status=403)
        if local and not is_local(_host(request.headers.get("Host", ""))):
            return web.json_response({"error": "unknown host"}, status=403)
        response: web.StreamResponse = await handler(request)
        return response

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=core.metrics().encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"ready": lifecycle.ready}, status=200 if lifecycle.ready else 503)

    async def repository(_: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "name": entry.name,
                    "version": entry.version,
                    "state": entry.state,
                    "reason": entry.reason,
                    "runs": entry.placed,
                    "directory": str(entry.artifact.directory) if entry.artifact else None,
                }
                for entry in lifecycle.versions()
            ]
        )

    async def statistics(_: web.Request) -> web.Response:
        return web.Response(body=core.statistics(), content_type="application/json")

    async def load(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            parameters = _read_parameters(body)
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": f"the body is not as expected: {error}"}, status=400)
        return await _changed(lifecycle.load(request.match_info["model"], parameters))

    async def unload(request: web.Request) -> web.Response:
        return await _changed(lifecycle.unload(request.match_info["model"]))

    async def _changed(change: Awaitable[None]) -> web.Response:
        try:
            await change
        except ControlError as error:
            return web.json_response({"error": str(error)}, status=_STATUS.get(error.code, 500))
        return web.json_response({})

    async def document(request: web.Request) -> web.Response:
        served, _ = _models(lifecycle)
        management = f"http://{request.host}"
        return web.json_response(
            make_document(served, main=reachable(main, request.host), management=management)
        )

    async def page(request: web.Request) -> web.Response:
        served, unserved = _models(lifecycle)
        text = make_page(served, unserved, main=reachable(main, request.host))
        return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)

    async def example(request: web.Request) -> web.Response:
        wanted = (request.match_info["model"], request.match_info["version"])
        served, _ = _models(lifecycle)
        model = next((each for each in served if (each.name, each.version) == wanted), None)
        if model is None:
            return web.json_response(
                {"error": f"no model '{wanted[0]}' of that version is served"}, status=404
            )
        body = example_request(model)
        if body is None:
            return web.json_response({"error": "the request would be too large for JSON"}, status=404)
        return web.json_response(body)

    handlers: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
        "metrics": metrics,
        "health": health,
        "managedIndex": repository,
        "managedStatistics": statistics,
        "managedLoad": load,
        "managedUnload": unload,
        "openapi": document,
        "docs": page,
        "example": example,
    }
    application = web.Application(middlewares=[guard], client_max_size=_BODY_BYTES)
    for route in ROUTES:
        if route.port == "management":
            handler = handlers[route.operation]
            add = {"get": application.router.add_get, "post": application.router.add_post}
            for method in route.methods:
                add[method](route.path, handler)
    return application


async def listen(application: web.Application, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Start listening.

    Returns:
        What to clean up at the end, and the address in use.

    Raises:
        OSError: When the address cannot be had.
    """
    from aiohttp import web

    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    bound = runner.addresses[0]
    return runner, f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"


def _read_parameters(body: bytes) -> dict[str, Any]:
    """What a request to load says; an empty body says nothing.

    Raises:
        ValueError: Saying what was expected.
    """
    value = json.loads(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ValueError("expected 'parameters' to be a JSON object")
    return parameters


def _models(lifecycle: Lifecycle) -> tuple[list[ServedModel], list[UnservedModel]]:
    """What is served and what is not, as the documentation wants it."""
    served, unserved = [], []
    for entry in lifecycle.versions():
        if entry.state == "READY" and entry.version is not None:
            served.append(_served(entry, entry.version))
        else:
            unserved.append(
                UnservedModel(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
            )
    return served, unserved


def _served(entry: Version, version: str) -> ServedModel:
    said = entry.specification
    inputs, outputs = (
        tuple(TensorSpec(row[0], row[1], tuple(row[2]), bool(row[3:] and row[3])) for row in said[field])
        for field in ("inputs", "outputs")
    )
    return ServedModel(
        name=entry.name,
        version=version,
        platform=said["platform"],
        backend=said["backend"],
        runs=entry.placed,
        description=said["description"],
        max_batch_size=said["max_batch_size"],
        inputs=inputs,
        outputs=outputs,
    )


def reachable(main: Sequence[str], host: str) -> list[str]:
    """URLs of the main port as whoever asks can use them: a listener on every address is on theirs too."""
    name = _host(host)
    name = name if re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", name) else "localhost"
    return [re.sub(r"//(0\.0\.0\.0|\[::\])(?=:)", f"//{name}", url) for url in main] or [
        "http://localhost:8000"
    ]


def _host(header: str) -> str:
    return (
        header[: header.index("]") + 1] if header.startswith("[") and "]" in header else header.split(":")[0]
    )
