"""The management listener: metrics, the repository and statistics, on a port of its own.

It is for operators: localhost unless told otherwise, and never for browsers.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any, Protocol

from kingpole.lifecycle import ControlError, Lifecycle

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


def make_application(core: Reporting, lifecycle: Lifecycle, *, local: bool = True) -> web.Application:
    """Make the application.

    Args:
        core: Where metrics come from.
        lifecycle: What loads and unloads.
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

    async def change(request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        try:
            if action == "load":
                body = await request.read()
                parameters = json.loads(body).get("parameters", {}) if body else {}
                await lifecycle.load(name, parameters)
            else:
                await lifecycle.unload(name)
        except ControlError as error:
            return web.json_response({"error": str(error)}, status=_STATUS.get(error.code, 500))
        except (ValueError, AttributeError):
            return web.json_response({"error": "the body is no JSON object"}, status=400)
        return web.json_response({})

    application = web.Application(middlewares=[guard], client_max_size=_BODY_BYTES)
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", health),
            web.get("/repository", repository),
            web.get("/statistics", statistics),
            web.post("/repository/{name}/{action:load|unload}", change),
        ]
    )
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


def _host(header: str) -> str:
    return (
        header[: header.index("]") + 1] if header.startswith("[") and "]" in header else header.split(":")[0]
    )
